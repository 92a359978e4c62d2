// What a person says of answers: kept in this browser, filtered by, and written as a CSV that the jobs read.
"use strict";

report.verdicts = (() => {
  const NAMES = { accepted: "Accepted", rejected: "Rejected", "to-correct": "To correct" };
  const COLUMNS = ["video", "expression", "text", "verdict"];
  const said = new Map(); // video and sentence → [video, expression, sentence, verdict]
  let changed = () => {}, key = "";

  // Reads what was said of the answers of a run. A page from disk may have no storage: then verdicts last as long as it is open.
  function begin(run) {
    key = `verdicts:${location.pathname}:${run}`;
    try {
      for (const line of JSON.parse(localStorage.getItem(key) ?? "[]")) said.set(place(line[0], line[2]), line);
    } catch { /* nothing is kept */ }
  }

  function place(video, sentence) { return `${video}\n${sentence}`; }

  function keep() {
    try { localStorage.setItem(key, JSON.stringify([...said.values()])); } catch { /* then it is not kept */ }
    changed();
  }

  const of = (video, sentence) => said.get(place(video, sentence))?.[3] ?? "";
  const ofRow = (video, row) => of(report.data.videos.id[video], report.data.sentences[report.data.rows.sentence[row]]);

  function say(video, expression, sentence, verdict) {
    if (of(video, sentence) === verdict) said.delete(place(video, sentence));
    else said.set(place(video, sentence), [video, expression, sentence, verdict]);
    keep();
  }

  const quoted = value => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const csv = () => [COLUMNS, ...said.values()].map(line => `${line.map(quoted).join(",")}\n`).join("");

  // Buttons for one answer; the one that is pressed is its verdict.
  function buttons(video, expression, sentence) {
    const group = report.parts.element("div", "verdicts");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Verdict");
    const show = () => group.querySelectorAll("button").forEach(one => one.setAttribute("aria-pressed", one.value === of(video, sentence)));
    group.append(...Object.entries(NAMES).map(([verdict, name]) => {
      const button = report.parts.element("button", `chip ${verdict}`, name);
      Object.assign(button, { type: "button", value: verdict });
      button.onclick = () => { say(video, expression, sentence, verdict); show(); };
      return button;
    }));
    show();
    return group;
  }

  const save = () => report.parts.download(new Blob([csv()], { type: "text/csv" }), "verdicts.csv");

  return { NAMES, begin, buttons, csv, ofRow, save, get count() { return said.size; }, set onchange(f) { changed = f; } };
})();
