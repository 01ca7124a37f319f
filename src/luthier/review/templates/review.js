"use strict";
(() => {
  const { sheet, entries } = JSON.parse(document.getElementById("content").textContent);
  const at = (id) => document.getElementById(id);
  const radios = [...document.querySelectorAll("input[name=mark]")];
  const store = `luthier-review-${sheet}`;
  let marks = {};
  let here = 0;
  let saved = true;

  // What was marked before in this browser; some browsers keep nothing for a page from a file.
  try {
    const kept = JSON.parse(localStorage.getItem(store) || "{}");
    marks = kept.marks || {};
    at("reviewer").value = kept.reviewer || "";
  } catch { /* nothing is kept, the file that is saved has everything */ }

  function keep() {
    saved = false;
    try {
      localStorage.setItem(store, JSON.stringify({ marks, reviewer: at("reviewer").value }));
    } catch { /* as above */ }
  }

  const of = (number) => marks[number] || { mark: "", comment: "" };
  const done = () => entries.filter((entry) => of(entry.number).mark).length;

  function show(index, focus) {
    here = Math.max(0, Math.min(entries.length - 1, index));
    const entry = entries[here];
    at("number").textContent = `Question ${here + 1} of ${entries.length}`;
    at("question").textContent = entry.question;
    at("answer-a").textContent = entry.a;
    at("answer-b").textContent = entry.b;
    at("reference").textContent = entry.reference;
    at("comment").value = of(entry.number).comment;
    radios.forEach((radio) => { radio.checked = radio.value === of(entry.number).mark; });
    at("before").disabled = here === 0;
    at("next").disabled = here === entries.length - 1;
    refresh();
    if (focus) {
      at("number").focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
  }

  function refresh() {
    const entry = entries[here];
    const mark = of(entry.number).mark;
    at("answer-a").parentElement.classList.toggle("chosen", mark === "A");
    at("answer-b").parentElement.classList.toggle("chosen", mark === "B");
    at("clear").disabled = !mark;
    at("progress").value = done();
    at("told").textContent = `${done()} of ${entries.length} marked`;
    [...at("list").children].forEach((place, index) => {
      const button = place.firstChild;
      const marked = Boolean(of(entries[index].number).mark);
      button.classList.toggle("done", marked);
      button.setAttribute("aria-label", `Question ${index + 1}${marked ? ", marked" : ""}`);
      if (index === here) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
  }

  function set(change) {
    const number = entries[here].number;
    marks[number] = { ...of(number), ...change };
    keep();
    refresh();
  }

  function cell(value) {
    let text = String(value);
    if (/^[=+\-@\t\r]/.test(text)) text = `'${text}`; // a spreadsheet would take it for a formula
    return /[",\r\n;]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function save() {
    const reviewer = at("reviewer").value.trim();
    const notice = at("notice");
    notice.hidden = Boolean(reviewer && done());
    if (!done()) notice.textContent = "There is no mark yet.";
    if (!reviewer) {
      notice.textContent = "Write your name (any name) first, so that several people's marks can be told apart.";
      at("reviewer").focus();
    }
    if (!notice.hidden) return;
    const rows = [["sheet", "number", "mark", "comment", "reviewer"]];
    for (const { number } of entries) {
      const { mark, comment } = of(number);
      if (mark) rows.push([sheet, number, mark, comment, reviewer]);
    }
    const text = "\ufeff" + rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = `marks-${sheet}-${reviewer.replace(/[^\p{L}\p{N}]+/gu, "-")}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    saved = true;
  }

  entries.forEach((entry, index) => {
    const place = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = index + 1;
    button.addEventListener("click", () => show(index, true));
    place.append(button);
    at("list").append(place);
  });
  radios.forEach((radio) => radio.addEventListener("change", () => set({ mark: radio.value })));
  at("comment").addEventListener("input", () => set({ comment: at("comment").value }));
  at("reviewer").addEventListener("input", keep);
  at("before").addEventListener("click", () => show(here - 1, true));
  at("next").addEventListener("click", () => show(here + 1, true));
  at("clear").addEventListener("click", () => { set({ mark: "" }); show(here, true); });
  at("save").addEventListener("click", save);
  at("card").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, input:not([type=radio])");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const radio = radios[Number(event.key) - 1];
    if (radio && event.key.trim()) {
      set({ mark: radio.value });
      show(here + (here < entries.length - 1 ? 1 : 0), true);
    } else if (event.key === "ArrowLeft" && !event.target.matches("input")) show(here - 1, true);
    else if (event.key === "ArrowRight" && !event.target.matches("input")) show(here + 1, true);
    else return;
    event.preventDefault();
  });
  window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
  show(0, false);
})();
