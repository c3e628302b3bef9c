"use strict";
// The snippets of the search show formulas in plain text, which each keeps in its attribute alttext.
if (typeof Search !== "undefined") {
  const textOf = Search.htmlToText;
  Search.htmlToText = (html, anchor) =>
    textOf(html.replace(/<math[^>]*? alttext="([^"]*)"[^>]*>.*?<\/math>/gs, " $1 "), anchor);
}
