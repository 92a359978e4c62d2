// The page: reads the filters, shows a page of cards, and keeps the state in the address, so that Back works.
"use strict";

(() => {
  const PAGE = 24, ROWS = 50, LINES = 3;
  const { address, clock, element, line, pager, player, span, theme, whole } = report.parts, viewer = report.viewer;
  const $ = id => document.getElementById(id);
  const START = { query: "", status: "012", low: 0, high: 100, sort: "name", verdict: "", page: 1, tab: "videos", video: "", stage: "" };
  const state = { ...START };
  let found = { videos: [], passes: [] }, looked = [], problems, drawing = 0;

  // State ↔ address
  function remember(replace) {
    const changed = Object.entries(state).filter(([name, value]) => value !== START[name]);
    const hash = `#${new URLSearchParams(changed)}`;
    if (hash !== (location.hash || "#")) history[replace ? "replaceState" : "pushState"](null, "", hash);
  }

  function recall() {
    const parameters = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    for (const [name, value] of Object.entries(START)) {
      const given = parameters[name] ?? value;
      state[name] = typeof value === "number" ? Number(given) || value : given;
    }
    if (!$(state.tab)?.matches("[role=tabpanel]")) state.tab = START.tab;
    for (const name of ["sort", "verdict"])
      if (![...$(name).options].some(option => option.value === state[name])) state[name] = START[name];
    $("query").value = state.query;
    $("low").value = state.low;
    $("high").value = state.high;
    $("sort").value = state.sort;
    $("verdict").value = state.verdict;
    document.querySelectorAll("[name=status]").forEach(box => { box.checked = state.status.includes(box.value); });
    show();
    const video = report.data.place.get(state.video);
    if (video === undefined) viewer.close();
    else if (viewer.shown !== video) viewer.open(video);
  }

  function change(values, replace = false) {
    Object.assign(state, values);
    remember(replace);
    show();
  }

  // Videos
  function show() {
    document.querySelectorAll("[role=tab]").forEach(tab => {
      const here = tab.dataset.tab === state.tab;
      tab.setAttribute("aria-selected", here);
      tab.tabIndex = here ? 0 : -1;
      $(tab.dataset.tab).hidden = !here;
    });
    if (state.tab === "videos") showVideos();
    if (state.tab === "problems") showProblems();
  }

  function showVideos() {
    const status = new Set([...state.status].map(Number));
    found = report.find({ ...state, status });
    const last = Math.max(1, Math.ceil(found.videos.length / PAGE));
    state.page = Math.min(Math.max(1, state.page), last);
    showFilters();
    const shown = found.videos.slice((state.page - 1) * PAGE, state.page * PAGE);
    $("results").replaceChildren(...shown.map(card));
    fill(shown, ++drawing);
    pager($("pager"), state.page, last, number => { change({ page: number }); scrollTo({ top: 0 }); $("results").focus({ preventScroll: true }); });
    $("nothing").hidden = shown.length > 0;
    $("nothing").textContent = report.data.count ? "No video passes these filters." : "No video was annotated. The quarantine says why.";
  }

  function showFilters() {
    const all = report.data.count, some = found.videos.length;
    const filtered = state.query || state.status !== START.status || state.low > 0 || state.high < 100 || state.verdict;
    $("clear").hidden = !filtered;
    $("export").hidden = !report.verdicts.count;
    $("export").textContent = `Save ${whole(report.verdicts.count)} verdicts`;
    $("summary").textContent = `${filtered ? `${whole(some)} of ${whole(all)}` : whole(all)} videos, ${whole(found.rows)} expressions`;
    $("range-text").textContent = state.low > 0 || state.high < 100 ? `${state.low} – ${state.high} %` : "any";
    document.querySelectorAll("[data-status]").forEach(count => { count.textContent = whole(found.statuses[count.dataset.status]); });
    const most = Math.max(1, ...found.histogram), bars = $("histogram");
    if (!bars.childElementCount) bars.append(...found.histogram.map(() => element("i")));
    [...bars.children].forEach((bar, place) => {
      bar.style.height = found.histogram[place] ? `${Math.max(6, (100 * found.histogram[place]) / most)}%` : "0";
      bar.classList.toggle("in", place * 4 + 4 > state.low && place * 4 < Math.max(state.high, 1));
    });
    $("filters").style.setProperty("--low", `${state.low}%`);
    $("filters").style.setProperty("--high", `${state.high}%`);
  }

  function card(video) {
    const { videos, folders, first } = report.data;
    const made = $("card").content.cloneNode(true).firstElementChild, open = made.querySelector(".open");
    made.dataset.video = video;
    open.querySelector("bdi").textContent = videos.name[video];
    open.onclick = () => look(video);
    made.querySelector(".path bdi").textContent = folders[videos.folder[video]];
    made.querySelector(".path").title = folders[videos.folder[video]];
    made.querySelector(".length").textContent = clock(videos.seconds[video]);
    made.querySelector(".play").hidden = true;
    made.querySelector(".expressions").append(...lines(video, first[video], first[video + 1]));
    return made;
  }

  // Lists a few expressions; those that pass the filters are preferred.
  function lines(video, begin, end, details) {
    const rows = Array.from({ length: end - begin }, (_, place) => begin + place);
    const ordered = [...rows.filter(row => found.passes[row]), ...rows.filter(row => !found.passes[row])].slice(0, LINES);
    const made = ordered.sort((a, b) => a - b).map(row =>
      line(row, row - begin, details?.expressions[row - begin], found.passes[row], report.verdicts.ofRow(video, row)));
    if (rows.length <= LINES) return made;
    const more = element("li", "more"), button = element("button", "quiet", `and ${rows.length - LINES} more`);
    button.type = "button";
    button.onclick = () => look(video);
    more.append(button);
    return [...made, more];
  }

  function fill(shown, mine) {
    for (const video of shown) {
      report.details(video).catch(() => undefined).then(details => {
        const made = mine === drawing && document.querySelector(`.card[data-video="${video}"]`);
        if (made) fillCard(made, video, details);
      });
    }
  }

  function fillCard(made, video, details) {
    const thumb = made.querySelector(".thumb"), image = thumb.querySelector("img"), play = thumb.querySelector(".play");
    const name = report.data.videos.name[video];
    if (!details?.still) { thumb.classList.add("bare"); image.remove(); }
    else { image.onerror = () => { thumb.classList.add("bare"); image.remove(); }; image.src = address(details.still); }
    if (!details) return;
    play.hidden = !details.overlay;
    play.setAttribute("aria-label", `Play ${name}`);
    play.onclick = () => player(thumb, details, name).focus();
    made.querySelector(".expressions").replaceChildren(...lines(video, report.data.first[video], report.data.first[video + 1], details));
  }

  function look(video, replace = false) {
    if (!replace) looked = found.videos; // a verdict may take a video out of those that pass the filters
    document.querySelectorAll(".card video").forEach(other => other.pause());
    state.video = report.data.videos.id[video];
    remember(replace);
    viewer.open(video);
  }

  viewer.onclose = () => { if (state.video) { state.video = ""; remember(true); } };
  viewer.onstep = by => {
    const list = looked.includes(viewer.shown) ? looked : found.videos, next = list[list.indexOf(viewer.shown) + by];
    if (next !== undefined) look(next, true);
  };

  // Quarantine
  async function showProblems() {
    problems ??= await report.allProblems().catch(error => { $("no-problems").textContent = error.message; return []; });
    const words = report.fold(state.query).split(/\s+/).filter(Boolean);
    const matching = problems.filter(line => { const text = report.fold(Object.values(line).join(" ")); return words.every(word => text.includes(word)); });
    const stages = new Map();
    matching.forEach(line => stages.set(line.stage ?? "", (stages.get(line.stage ?? "") ?? 0) + 1));
    $("reasons").replaceChildren(...[...stages].sort().map(([stage, count]) => {
      const chip = element("button", "chip", `${stage || "no stage"} `);
      chip.append(element("span", "count", whole(count)));
      chip.type = "button";
      chip.setAttribute("aria-pressed", state.stage === stage);
      chip.onclick = () => change({ stage: state.stage === stage ? "" : stage, page: 1 });
      return chip;
    }));
    const shown = matching.filter(line => !state.stage || line.stage === state.stage), last = Math.max(1, Math.ceil(shown.length / ROWS));
    const page = Math.min(Math.max(1, state.page), last);
    $("problem-summary").textContent = `${whole(shown.length)} of ${whole(report.data.problems.count)} items could not be used`;
    $("problem-rows").replaceChildren(...shown.slice((page - 1) * ROWS, page * ROWS).map(problem));
    document.querySelector("#problems .scroll").hidden = !shown.length;
    $("no-problems").hidden = shown.length > 0;
    $("no-problems").textContent ||= "Nothing to see here: everything could be used, or nothing matches the search.";
    pager($("problem-pager"), page, last, number => { change({ page: number }); scrollTo({ top: 0 }); });
  }

  function problem({ video = "", stage = "", reason = "", ...more }) {
    const row = element("tr"), cell = element("td"), why = element("td", "reason", reason);
    cell.append(element("bdi", "", video));
    for (const [name, value] of Object.entries(more)) cell.append(element("span", "extra", `${name}: ${value}`));
    why.dir = "auto";
    row.append(cell, element("td", "stage", stage), why);
    return row;
  }

  // Parts that do not change
  function begin(index) {
    report.take(index);
    const { data } = report, sum = data.videos.seconds.reduce((all, seconds) => all + seconds, 0);
    const totals = [["Videos", whole(data.count)], ["Sentences", whole(data.sentences.length)], ["Expressions", whole(data.rows.score.length)],
      ["Frames", whole(data.frames)], ["Footage", span(sum)], ["In quarantine", whole(data.problems.count)]];
    $("totals").replaceChildren(...totals.map(([name, value]) => {
      const tile = element("div");
      tile.append(element("dt", "", name), element("dd", "", value));
      return tile;
    }));
    document.querySelector("[data-count=videos]").textContent = whole(data.count);
    document.querySelector("[data-count=problems]").textContent = whole(data.problems.count);
    $("about-rows").replaceChildren(...data.about.map(([name, value]) => {
      const row = element("tr"), head = element("th", "", name), cell = element("td", "", value);
      head.scope = "row";
      cell.dir = "auto";
      row.append(head, cell);
      return row;
    }));
    listen();
    recall();
    document.documentElement.dataset.ready = "";
  }

  function listen() {
    let later;
    $("query").addEventListener("input", event => {
      clearTimeout(later);
      later = setTimeout(() => change({ query: event.target.value, page: 1 }, true), 120);
    });
    $("filters").addEventListener("input", event => {
      const low = $("low"), high = $("high");
      if (event.target === low && +low.value > +high.value) low.value = high.value;
      if (event.target === high && +high.value < +low.value) high.value = low.value;
      const status = [...document.querySelectorAll("[name=status]:checked")].map(box => box.value).join("");
      change({ low: +low.value, high: +high.value, sort: $("sort").value, verdict: $("verdict").value, status, page: 1 }, true);
    });
    $("filters").addEventListener("submit", event => event.preventDefault());
    $("filters").addEventListener("reset", event => { event.preventDefault(); change({ ...START, video: state.video }); recall(); $("query").focus(); });
    document.querySelectorAll("[role=tab]").forEach(tab => { tab.onclick = () => change({ tab: tab.dataset.tab, page: 1 }); });
    document.querySelector("[role=tablist]").addEventListener("keydown", event => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], tabs = [...document.querySelectorAll("[role=tab]")];
      if (!by) return;
      event.preventDefault();
      const next = tabs.at((tabs.indexOf(event.target) + by) % tabs.length);
      next.click();
      next.focus();
    });
    $("export").onclick = report.verdicts.save;
    report.verdicts.onchange = () => { if (state.tab === "videos") showVideos(); };
    addEventListener("popstate", recall);
    document.addEventListener("keydown", keys);
    theme($("theme"));
  }

  function keys(event) {
    const typing = event.target.closest("input, select, textarea, video, dialog, [role=tablist]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); $("query").focus(); $("query").select(); }
    const nav = state.tab === "problems" ? $("problem-pager") : $("pager");
    if (event.key === "ArrowLeft") nav.firstElementChild?.click();
    if (event.key === "ArrowRight") nav.lastElementChild?.click();
  }

  report.index = begin;
})();
