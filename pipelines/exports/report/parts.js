// Elements of cards and details. Names and texts are added as text nodes only, so that markup in them is inert.
"use strict";

report.parts = (() => {
  const STATUS = [["Found", "ok"], ["Absent", "absent"], ["Partial", "partial"]];
  const NONE = new Set(), percent = value => `${Math.round(value / 10)} %`;
  const whole = number => number.toLocaleString("en").replaceAll(",", "\u202f");
  const svg = name => document.createElementNS("http://www.w3.org/2000/svg", name);

  function element(name, className = "", text = "") {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text) made.textContent = text;
    return made;
  }

  // 75.2 → "1:15"; with tenths if it is short.
  function clock(seconds) {
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    const total = Math.round(seconds), two = number => String(number).padStart(2, "0");
    const hours = Math.floor(total / 3600), minutes = Math.floor(total / 60) % 60;
    return hours ? `${hours}:${two(minutes)}:${two(total % 60)}` : `${minutes}:${two(total % 60)}`;
  }

  function span(seconds) {
    if (seconds < 60) return `${Math.round(seconds)} s`;
    return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
  }

  // Escapes each name of a path, since it may contain #, ? or %.
  const address = path => path.split("/").map(part => (part === ".." ? part : encodeURIComponent(part))).join("/");
  const colour = place => report.data.colours[place % report.data.colours.length];

  // Draws the times with a mask as boxes in a drawing 100 wide.
  function stretches(masked, height) {
    const drawing = svg("svg"), width = 100 / masked.length;
    drawing.setAttribute("viewBox", `0 0 100 ${height}`);
    drawing.setAttribute("preserveAspectRatio", "none");
    for (const found of masked.matchAll(/1+/g)) {
      const box = svg("rect");
      for (const [name, value] of Object.entries({ x: found.index * width, y: 0, width: found[0].length * width, height }))
        box.setAttribute(name, value);
      drawing.append(box);
    }
    return drawing;
  }

  function curve(scores, masked) {
    const drawing = stretches(masked, 100), area = svg("path"), width = 100 / scores.length;
    const steps = scores.map((score, at) => `V${100 - score}H${((at + 1) * width).toFixed(2)}`).join("");
    area.setAttribute("d", `M0 100${steps}V100Z`);
    drawing.append(area);
    return drawing;
  }

  // One expression of a video on a card: colour, text, status, score, and the times when it is visible.
  function line(row, place, expression, passes, verdict = "") {
    const made = document.getElementById("line").content.cloneNode(true).firstElementChild, { rows, sentences } = report.data;
    made.style.setProperty("--colour", colour(place));
    made.classList.toggle("faint", !passes);
    const text = sentences[rows.sentence[row]];
    const sentence = made.querySelector(".sentence");
    sentence.textContent = text.trim() ? text : "(no words)";
    sentence.title = text;
    badge(made.querySelector(".badge"), rows.status[row]);
    const judged = made.querySelector(".verdict");
    judged.hidden = !verdict;
    judged.textContent = report.verdicts.NAMES[verdict] ?? "";
    if (verdict) judged.classList.add(verdict);
    made.querySelector(".score").textContent = percent(rows.score[row]);
    made.querySelector(".score").title = "Score, averaged over the frames";
    made.querySelector(".strip").replaceChildren(...(expression ? [stretches(expression.masked, 10)] : []));
    return made;
  }

  function badge(made, status) {
    made.textContent = STATUS[status][0];
    made.classList.add(STATUS[status][1]);
    made.hidden = status === 0;
    return made;
  }

  // A player that replaces the still; it shows a message where it cannot play.
  function player(into, details, name) {
    const video = element("video"), failed = element("p", "failed", "This browser cannot play the overlay, or the file is gone.");
    Object.assign(video, { controls: true, muted: true, loop: true, playsInline: true, autoplay: true, preload: "auto" });
    video.setAttribute("aria-label", `Overlay of ${name}`);
    if (details.still) video.poster = address(details.still);
    video.src = address(details.overlay);
    video.onplay = () => document.querySelectorAll("video").forEach(other => other !== video && other.pause());
    video.onerror = () => video.replaceWith(failed);
    into.replaceChildren(video);
    return video;
  }

  // Returns the numbers of the first, last and neighbouring pages; 0 stands for a gap.
  function pageNumbers(current, last) {
    const near = [1, current - 1, current, current + 1, last].filter(number => number >= 1 && number <= last);
    const numbers = [...new Set(near)].sort((a, b) => a - b);
    return numbers.flatMap((number, at) => (at && number - numbers[at - 1] > 1 ? [0, number] : [number]));
  }

  function pager(nav, current, last, go) {
    nav.hidden = last < 2;
    if (nav.hidden) return nav.replaceChildren();
    const button = (text, number, label, off) => {
      const made = element("button", "", text);
      Object.assign(made, { type: "button", disabled: off, onclick: () => go(number) });
      made.setAttribute("aria-label", label);
      if (text === String(current)) made.setAttribute("aria-current", "page");
      return made;
    };
    nav.replaceChildren(
      button("‹", current - 1, "Previous page", current === 1),
      ...pageNumbers(current, last).map(number =>
        number ? button(String(number), number, `Page ${number}`, false) : element("span", "gap", "…")),
      button("›", current + 1, "Next page", current === last),
    );
  }

  // Light or dark: as the system, until the user chooses. A page from disk may have no storage.
  function theme(button) {
    const names = ["system", "light", "dark"];
    const kept = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
    const keep = name => { try { localStorage.setItem("theme", name); } catch { /* then it is not kept */ } };
    const set = name => {
      document.documentElement.dataset.theme = name;
      button.querySelector(".hidden").textContent = `Colours: ${name}`;
      button.title = `Colours: ${name}`;
    };
    set(names.includes(kept()) ? kept() : "system");
    button.onclick = () => {
      const name = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
      set(name);
      keep(name);
    };
  }

  // Hands a file over as a download.
  function download(blob, name) {
    const link = element("a"), url = URL.createObjectURL(blob);
    Object.assign(link, { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  return { NONE, STATUS, address, badge, clock, colour, curve, download, element, line, pager, percent, player, span, theme, whole };
})();
