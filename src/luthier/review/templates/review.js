"use strict";
(() => {
  const { sheet, entries } = JSON.parse(document.getElementById("content").textContent);
  const at = (id) => document.getElementById(id);
  const radios = [...document.querySelectorAll("input[name=mark]")];
  const store = `luthier-review-${sheet}`;
  let marks = {};
  let current = 0;
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

  const markOf = (number) => marks[number] || { mark: "", comment: "" };
  const markedCount = () => entries.filter((entry) => markOf(entry.number).mark).length;

  function show(index, focus) {
    current = Math.max(0, Math.min(entries.length - 1, index));
    const entry = entries[current];
    at("number").textContent = `Question ${current + 1} of ${entries.length}`;
    at("question").textContent = entry.question;
    at("answer-a").textContent = entry.a;
    at("answer-b").textContent = entry.b;
    at("reference").textContent = entry.reference;
    at("comment").value = markOf(entry.number).comment;
    radios.forEach((radio) => { radio.checked = radio.value === markOf(entry.number).mark; });
    at("before").disabled = current === 0;
    at("next").disabled = current === entries.length - 1;
    refresh();
    if (focus) {
      at("number").focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
  }

  function refresh() {
    const entry = entries[current];
    const mark = markOf(entry.number).mark;
    at("answer-a").parentElement.classList.toggle("chosen", mark === "A");
    at("answer-b").parentElement.classList.toggle("chosen", mark === "B");
    at("clear").disabled = !mark;
    at("progress").value = markedCount();
    at("marked-count").textContent = `${markedCount()} of ${entries.length} marked`;
    [...at("list").children].forEach((entryItem, index) => {
      const button = entryItem.firstChild;
      const marked = Boolean(markOf(entries[index].number).mark);
      button.classList.toggle("done", marked);
      button.setAttribute("aria-label", `Question ${index + 1}${marked ? ", marked" : ""}`);
      if (index === current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
  }

  function set(change) {
    const number = entries[current].number;
    marks[number] = { ...markOf(number), ...change };
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
    notice.hidden = Boolean(reviewer && markedCount());
    if (!markedCount()) notice.textContent = "You have not marked any question yet.";
    if (!reviewer) {
      notice.textContent = "Enter your name (any name will do) first, to keep the marks of several people apart.";
      at("reviewer").focus();
    }
    if (!notice.hidden) return;
    const rows = [["sheet", "number", "mark", "comment", "reviewer"]];
    for (const { number } of entries) {
      const { mark, comment } = markOf(number);
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
    const entryItem = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = index + 1;
    button.addEventListener("click", () => show(index, true));
    entryItem.append(button);
    at("list").append(entryItem);
  });
  radios.forEach((radio) => radio.addEventListener("change", () => set({ mark: radio.value })));
  at("comment").addEventListener("input", () => set({ comment: at("comment").value }));
  at("reviewer").addEventListener("input", keep);
  at("before").addEventListener("click", () => show(current - 1, true));
  at("next").addEventListener("click", () => show(current + 1, true));
  at("clear").addEventListener("click", () => { set({ mark: "" }); show(current, true); });
  at("save").addEventListener("click", save);
  at("card").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, input:not([type=radio])");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const radio = radios[Number(event.key) - 1];
    if (radio && event.key.trim()) {
      set({ mark: radio.value });
      show(current + (current < entries.length - 1 ? 1 : 0), true);
    } else if (event.key === "ArrowLeft" && !event.target.matches("input")) show(current - 1, true);
    else if (event.key === "ArrowRight" && !event.target.matches("input")) show(current + 1, true);
    else return;
    event.preventDefault();
  });
  window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
  show(0, false);
})();
