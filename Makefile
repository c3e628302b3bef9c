PYTHON = python3
SITE = docs/_build/html
SPHINX = -j auto -d docs/_build/doctrees -q docs $(SITE)

.PHONY: docs docs-serve

# The site is a folder of static files, which any host can serve.
docs:
	$(PYTHON) -m sphinx -E -W --keep-going -n $(SPHINX)
	@echo "open $(SITE)/index.html"

# Serves the site, and builds and reloads it when a text or the code changes.
docs-serve:
	$(PYTHON) -m sphinx_autobuild --watch manual_grad --watch benchmarks/results --re-ignore "/docs/((losses|guides)(/|$$)|figures$$)|svg$$" $(SPHINX)
