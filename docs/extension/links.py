"""References that Sphinx cannot resolve: names without their package, and torch's names."""

from __future__ import annotations

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

TORCH = "https://docs.pytorch.org/docs/stable/"


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Node | None:
    name = node.get("reftarget", "")
    if name.startswith("torch.nn."):
        return nodes.reference("", "", content, internal=False, refuri=f"{TORCH}generated/{name}.html")
    if name == "torch.Tensor":
        return nodes.reference("", "", content, internal=False, refuri=f"{TORCH}tensors.html#torch.Tensor")
    if node.get("refdomain") != "py":
        return None
    # look it up by its last component, as if from within its own module
    found = env.get_domain("py").find_obj(env, None, None, name, node["reftype"], searchmode=1)
    if len(found) != 1:
        return None
    full, entry = found[0][:2]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, full)


def setup(app: Sphinx) -> None:
    app.connect("missing-reference", resolve)
