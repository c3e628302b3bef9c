PYTHON = python3

.PHONY: docs
docs:
	$(PYTHON) -m sphinx -E -W --keep-going -n -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"
