/* What the theme leaves to do in the browser: offline reading, keyboards and screen readers, printing. */
(() => {
  "use strict";
  const offline = location.protocol === "file:";
  // From disk a page cannot read another one: there, a result of the search comes with the description of its page.
  if (offline) DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  const describe = (results) => {
    const script = document.createElement("script");
    script.src = `${document.documentElement.dataset.content_root}_static/descriptions.js`;
    script.addEventListener("load", () => {
      const fill = () => results.querySelectorAll("li > a[data-score]").forEach((link) => {
        const about = window.coursePages[link.getAttribute("href").replace(/\.html.*/, "")];
        if (!about || link.parentElement.querySelector("p.context")) return;
        const text = link.parentElement.appendChild(document.createElement("p"));
        text.className = "context";
        text.textContent = about;
      });
      fill();
      new MutationObserver(fill).observe(results, {childList: true, subtree: true});
    });
    document.head.append(script);
  };

  const scrollable = "div.math, mjx-container[display='true'], table.docutils, div.cell_output";

  /* What scrolls sideways can be reached, and so scrolled, with the keyboard. The theme does it for code. */
  const reachable = () => document.querySelectorAll(scrollable).forEach((box) => {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else if (box.tabIndex === 0) box.removeAttribute("tabindex");
  });

  document.addEventListener("DOMContentLoaded", () => {
    const results = document.getElementById("search-results");
    if (offline && results) describe(results);
    // The title above the navigation stands outside of every landmark.
    document.querySelector(".sidebar-primary-item:has(.navbar-brand)")?.setAttribute("role", "banner");
    document.querySelectorAll(".btn-launch-thebe").forEach((button) => {
      if (offline) button.closest("li").remove(); // live code runs on mybinder.org, which refuses pages from disk
      else button.title = "Run the code on this page, on mybinder.org (needs the network)";
    });
  });
  window.addEventListener("load", () => {
    reachable();
    // A screen reader says what a quiz answers.
    document.querySelectorAll(".Quiz .Feedback").forEach((text) => text.setAttribute("aria-live", "polite"));
    window.MathJax?.startup?.promise?.then(reachable);
  });
  window.addEventListener("resize", reachable);

  /* Paper is white. The theme's own script opens the folded solutions; what the course folds itself is opened here. */
  let theme;
  let folded = [];
  window.addEventListener("beforeprint", () => {
    theme = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    folded = [...document.querySelectorAll("details:not([open]):not(.hide)")];
    folded.forEach((details) => { details.open = true; });
  });
  window.addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = theme;
    folded.forEach((details) => { details.open = false; });
  });
})();
