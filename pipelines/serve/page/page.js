// The page: takes a video and sentences, asks the service, and shows the masks as they arrive.
"use strict";

(() => {
  const BINS = 240, MB = 1e6; // bins of a timeline
  const { api, camera, parts, stage } = report, { badge, clock, curve, percent, span, theme } = parts;
  const $ = id => document.getElementById(id);
  let health, files = [], images = false, kept, tracks = [], work, drawing = 0, told = 0;

  // Looks
  function say(text, wrong = "") {
    $("said").textContent = text;
    $("wrong").textContent = wrong;
    $("wrong").hidden = !wrong;
  }

  function busy(controller) {
    work = controller;
    $("progress").hidden = !controller;
    if (controller) $("bar").removeAttribute("value");
    offers();
  }

  function offers() {
    const answered = tracks.some(track => track.done);
    $("saves").hidden = !answered || camera.on;
    document.querySelectorAll("[data-format]").forEach(button => { button.disabled = Boolean(work); });
    $("another").hidden = !files.length && !camera.on;
    $("camera").hidden = !health?.live || camera.on || files.length > 0;
  }

  function draw() {
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => {
      const at = stage.frame;
      const shown = tracks.filter(track => track.on && track.rles[at] && !track.empty[at]);
      stage.draw(shown.map(track => ({ rle: track.rles[at], colour: track.colour })));
      $("clock").textContent = clock(stage.times[at] ?? 0);
      tracks.forEach(track => here(track, at));
      document.querySelectorAll(".chart").forEach(chart => chart.style.setProperty("--at", `${(100 * (at + 0.5)) / Math.max(1, stage.times.length)}%`));
    });
  }

  function here(track, at) {
    const line = track.element.querySelector(".here");
    const absent = track.done && track.status === 1;
    line.classList.toggle("absent", absent);
    if (absent) line.textContent = "not here: in no frame of this video";
    else if (track.empty[at]) line.textContent = "not here at this time";
    else line.textContent = track.scores[at] === undefined ? "" : `score ${percent(1000 * track.scores[at])}`;
  }

  // Draws the score over time of a track, in a few bins, with the times that have a mask.
  function timeline(track) {
    const count = stage.times.length, bins = Math.min(BINS, count), scores = [], masked = [];
    for (let bin = 0; bin < bins; bin++) {
      const from = Math.floor((bin * count) / bins), to = Math.max(from + 1, Math.floor(((bin + 1) * count) / bins));
      const known = track.scores.slice(from, to).filter(score => score !== undefined);
      scores.push(known.length ? (100 * known.reduce((sum, score) => sum + score, 0)) / known.length : 0);
      masked.push(track.empty.slice(from, to).some(empty => empty === false) ? "1" : "0");
    }
    const chart = track.element.querySelector(".chart"), head = parts.element("span", "head");
    chart.replaceChildren(curve(scores, masked.join("")), head);
    chart.classList.add("seeks");
  }

  function timelines() {
    clearTimeout(told);
    told = setTimeout(() => { if (kept) tracks.filter(track => track.scores.length).forEach(timeline); }, 120);
  }

  // Tracks
  function add(text) {
    const element = $("track").content.cloneNode(true).firstElementChild, place = free();
    const track = { text, place, colour: parts.colour(place), on: true, rles: [], scores: [], empty: [], done: false, status: 0, element };
    element.style.setProperty("--colour", track.colour);
    element.querySelector(".sentence").textContent = text;
    element.querySelector(".badge").hidden = true;
    element.querySelector(".switch").onclick = () => toggle(track);
    element.querySelector(".switch").setAttribute("aria-label", `Show ${text}`);
    element.querySelector(".remove").onclick = () => remove(track);
    element.querySelector(".remove").setAttribute("aria-label", `Remove ${text}`);
    element.querySelector(".chart").onclick = event => {
      const box = event.currentTarget.getBoundingClientRect();
      stage.go(Math.floor((stage.times.length * (event.clientX - box.left)) / box.width));
    };
    tracks.push(track);
    $("tracks").append(element);
    if (camera.on) camera.ask(tracks.map(one => one.text));
    else askAll();
  }

  // The first colour that no track has.
  function free() {
    const taken = new Set(tracks.map(track => track.place));
    let place = 0;
    while (taken.has(place)) place++;
    return place;
  }

  function toggle(track) {
    track.on = !track.on;
    track.element.classList.toggle("off", !track.on);
    track.element.querySelector(".switch").setAttribute("aria-checked", track.on);
    draw();
  }

  function remove(track) {
    tracks = tracks.filter(other => other !== track);
    track.element.remove();
    if (camera.on) camera.ask(tracks.map(one => one.text));
    draw();
    offers();
    $("sentence").focus();
  }

  function end(track, { score, status, note }) {
    track.done = true;
    track.status = { ok: 0, absent: 1, partial: 2 }[status];
    track.element.querySelector(".score").textContent = percent(1000 * score);
    const made = track.element.querySelector(".badge");
    made.className = "badge";
    badge(made, track.status);
    made.title = note;
  }

  // Asking
  async function askAll() {
    const pending = tracks.filter(track => !track.done);
    if (!kept || work || !pending.length) return;
    const controller = new AbortController();
    busy(controller);
    say(`Looking for ${pending.length === 1 ? "it" : `${pending.length} sentences`} …`);
    const total = stage.times.length * pending.length;
    let count = 0;
    try {
      await api.ask(kept.id, pending.map(track => track.text), controller.signal, line => {
        if (line.rle) {
          const track = pending[line.sentence];
          track.rles[line.frame] = line.rle;
          track.scores[line.frame] = line.score;
          track.empty[line.frame] = line.box === null;
          $("bar").value = ++count / total;
          if (line.frame === stage.frame) draw();
          timelines();
        }
        if (line.tracks) line.tracks.forEach(track => end(pending[track.sentence], track));
      });
      say("");
    } catch (error) {
      if (error.status === 404) kept = undefined;
      else pending.forEach(track => track.done || remove(track));
      fail(error);
    }
    busy();
    timelines();
    draw();
    if (kept) askAll();
    else if (files.length) upload();
  }

  async function upload() {
    const controller = new AbortController();
    busy(controller);
    say("The service reads the video …");
    try {
      kept = await api.keep(files, images, controller.signal);
      stage.describe(kept);
      $("facts").textContent = `${files[0].name} · ${kept.width} × ${kept.height} · ${kept.frames} frames · ${span(kept.seconds)}`;
      say(tracks.length ? "" : "Type what to look for.");
    } catch (error) {
      clear();
      fail(error);
    }
    busy();
    draw();
    askAll();
  }

  async function save(format) {
    const controller = new AbortController();
    busy(controller);
    say("The file is being made …");
    try {
      const answered = tracks.filter(track => track.done), made = await api.file(kept.id, answered.map(track => track.text), format, controller.signal);
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(made.blob), download: made.name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      say(`Saved as ${made.name}.`);
    } catch (error) {
      fail(error);
    }
    busy();
    askAll();
  }

  function fail(error) {
    if (error.name === "AbortError") return say("Cancelled.");
    if (error.status === 401) return void $("ask-token").showModal();
    if (error.status === 404 && files.length) return say("The service has forgotten the video; it is sent again.");
    say("", error.message);
  }

  // Videos
  async function take(list) {
    const chosen = [...list].filter(file => file.size);
    await ready;
    if (!chosen.length) return say("", "The file is empty. Choose a video.");
    images = chosen.every(file => file.type.startsWith("image/"));
    const bytes = chosen.reduce((sum, file) => sum + file.size, 0);
    if (!images && chosen.length > 1) return say("", "Choose one video, or several images.");
    if (bytes > health.limits.bytes)
      return say("", `The file has ${Math.ceil(bytes / MB)} MB, the limit is ${Math.floor(health.limits.bytes / MB)} MB. Choose a smaller one.`);
    clear();
    files = images ? chosen.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true })) : chosen;
    $("drop").hidden = true;
    $("player").hidden = false;
    $("unplayable").hidden = true;
    $("facts").textContent = files[0].name;
    stage.show(files, images);
    upload();
    $("sentence").focus();
  }

  function clear() {
    work?.abort();
    if (camera.on) camera.stop(stage.video);
    stage.hide();
    files = [];
    kept = undefined;
    $("tracks").replaceChildren();
    const texts = tracks.filter(track => !track.done).map(track => track.text);
    tracks = [];
    texts.forEach(add);
    $("drop").hidden = false;
    $("player").hidden = true;
    $("controls").hidden = false;
    $("facts").textContent = "";
    $("file").value = "";
    say("");
    offers();
  }

  async function live() {
    clear();
    try {
      $("drop").hidden = true;
      $("player").hidden = false;
      $("controls").hidden = true;
      await camera.start(stage.video, show, sentence => say("", sentence));
      camera.ask(tracks.map(track => track.text));
      say(tracks.length ? "" : "Type what to look for.");
    } catch (error) {
      clear();
      say("", error.name === "NotAllowedError" ? "The browser may not use the camera. Allow it, and try again." : `The camera cannot be used: ${error.message}`);
    }
    offers();
  }

  function show(answers, width, height) {
    Object.assign(stage.canvas, { width, height });
    $("stage").style.setProperty("--ratio", width / height);
    const shown = answers.map(answer => [tracks.find(track => track.text === answer.sentence), answer]).filter(([track]) => track);
    stage.draw(shown.filter(([track, { score }]) => track.on && score >= health.min_score).map(([track, { rle }]) => ({ rle, colour: track.colour })));
    shown.forEach(([track, { score }]) => {
      track.element.querySelector(".here").textContent = score < health.min_score ? "not here" : `score ${percent(1000 * score)}`;
    });
  }

  // Keys
  function key(event) {
    const typing = event.target.matches("input[type=text], input[type=password]");
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") return work?.abort();
    if (typing) return;
    const number = Number(event.key), track = number >= 1 && number <= 9 ? tracks[number - 1] : undefined;
    const acts = {
      "/": () => $("sentence").focus(),
      "?": () => $("keys").showModal(),
      " ": () => { if (event.target.matches("button")) return false; stage.toggle(); },
      ArrowLeft: () => { if (event.target.matches("input")) return false; stage.step(-1); },
      ArrowRight: () => { if (event.target.matches("input")) return false; stage.step(1); },
    };
    if (track) toggle(track);
    else if (!acts[event.key] || acts[event.key]() === false) return;
    event.preventDefault();
  }

  async function begin() {
    theme($("theme"));
    try {
      health = await api.health();
    } catch (error) {
      return fail(error);
    }
    report.data.colours = health.colours;
    const { bytes, seconds, sentences } = health.limits;
    $("limits").textContent = `or images, in the order of their names. At most ${Math.floor(bytes / MB)} MB, ${span(seconds)}, ${sentences} sentences.`;
    offers();
  }

  stage.onframe = draw;
  stage.video.addEventListener("error", () => { if (files.length && !images) $("unplayable").hidden = false; });
  $("file").onchange = event => take(event.target.files);
  $("form").onsubmit = async event => {
    event.preventDefault();
    const text = $("sentence").value.trim();
    if (!text) return;
    $("sentence").value = "";
    await ready;
    if (tracks.some(track => track.text === text)) return say("This sentence is asked already.");
    if (tracks.length >= health.limits.sentences) return say("", `${health.limits.sentences} sentences are the limit. Remove one.`);
    add(text);
    if (!files.length && !camera.on) say("It is asked as soon as a video is there.");
  };
  $("cancel").onclick = () => work?.abort();
  $("another").onclick = () => { clear(); $("file").focus(); };
  $("camera").onclick = live;
  $("help").onclick = () => $("keys").showModal();
  $("saves").onclick = event => { if (event.target.dataset.format) save(event.target.dataset.format); };
  $("token-form").onsubmit = () => {
    api.token = $("token").value;
    if (files.length) upload();
  };
  document.addEventListener("keydown", key);
  document.addEventListener("dragover", event => { event.preventDefault(); $("drop").classList.add("over"); });
  document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
  document.addEventListener("drop", event => {
    event.preventDefault();
    $("drop").classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  });
  const ready = begin(); // what is typed or dropped before the service has told its limits waits for them
})();
