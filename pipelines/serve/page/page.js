// The page: takes a video and sentences, asks the service, and shows the masks as they arrive.
"use strict";

(() => {
  const MB = 1e6, UNUSABLE = [413, 415, 422]; // answers to a video that will never be taken
  const { api, camera, parts, stage } = report, { download, span, theme } = parts;
  const $ = id => document.getElementById(id);
  let health, tracks = [], drawing = 0, charting = 0;
  let clip; // what is shown: { files, images, kept } of a video, with what the service says of it, or { live }
  let work; // AbortController of the request that runs
  let halted = false; // true after a failure: nothing is asked again before the user says so

  // Looks
  function say(text, wrong = "", again) {
    $("said").textContent = text;
    $("wrong").textContent = wrong;
    $("wrong").hidden = !wrong;
    $("again").hidden = !again;
    $("again").onclick = again;
  }

  function busy(controller) {
    work = controller;
    $("progress").hidden = !controller;
    $("bar").removeAttribute("value");
    $("share").textContent = "";
    offer();
  }

  function progress(share) {
    $("bar").value = share;
    $("share").textContent = parts.percent(1000 * share);
  }

  // Shows the buttons that are of use now.
  function offer() {
    $("drop").hidden = Boolean(clip);
    $("player").hidden = !clip;
    $("controls").hidden = !clip?.kept;
    $("another").hidden = !clip;
    $("camera").hidden = !health?.live || Boolean(clip);
    $("saves").hidden = !clip?.kept || !tracks.some(track => track.state === "done");
    document.querySelectorAll("[data-format]").forEach(button => { button.disabled = Boolean(work); });
  }

  function draw() {
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => {
      stage.draw(report.tracks.masks(tracks, stage.frame));
      tracks.forEach(track => report.tracks.show(track, stage.frame, stage.frames));
    });
  }

  function drawCharts() {
    charting ||= setTimeout(() => {
      charting = 0;
      if (stage.frames) tracks.filter(track => track.scores.length).forEach(track => report.tracks.chart(track, stage.frames));
    }, 150);
  }

  // Sentences
  function add(text) {
    const track = report.tracks.make(text, report.tracks.free(tracks), {
      ontoggle: toggle,
      onremove: remove,
      onseek: share => stage.go(Math.floor(share * stage.frames)),
    });
    tracks.push(track);
    $("tracks").append(track.element);
    halted = false;
    draw();
    next();
  }

  function toggle(track) {
    report.tracks.toggle(track);
    draw();
  }

  function remove(track) {
    tracks = tracks.filter(other => other !== track);
    track.element.remove();
    if (track.state === "running" && !tracks.some(other => other.state === "running")) work.abort();
    draw();
    offer();
    if (clip?.live) next();
    $("sentence").focus();
  }

  async function take(event) {
    event.preventDefault();
    const text = $("sentence").value.trim();
    if (!text) return;
    $("sentence").value = "";
    await ready;
    const { sentences } = health.limits;
    if (tracks.some(track => track.text === text)) return say("This sentence is asked already.");
    if (tracks.length >= sentences) return say("", `${sentences} sentences are the limit. Remove one.`);
    if (!work) say(clip ? "" : "It is asked as soon as a video is there.");
    add(text);
  }

  // Requests
  // Does what is due: the video is sent first, then all sentences that wait are asked together.
  function next() {
    const waiting = tracks.filter(track => track.state === "waiting");
    if (clip?.live) camera.ask(stage.video, tracks.map(track => track.text));
    else if (!clip || work || halted) return;
    else if (!clip.kept) during("The service reads the video …", read);
    else if (waiting.length) during(`Looking for ${waiting.length === 1 ? "it" : `${waiting.length} sentences`} …`, ask);
  }

  // Makes a request about the video, and says the sentence that it returns. If another video is taken meanwhile, what
  // comes of the request does not matter.
  async function during(text, request) {
    const mine = clip, controller = new AbortController();
    busy(controller);
    say(text);
    const said = await request(mine, controller.signal).catch(error => error);
    if (mine !== clip) return;
    busy();
    if (said instanceof Error) fail(said);
    else say(said);
    draw();
    drawCharts();
    next();
  }

  function fail(error) {
    const cancelled = error.name === "AbortError", lost = !clip.kept && (cancelled || UNUSABLE.includes(error.status));
    tracks.filter(track => track.state === "running").forEach(track => { track.state = "failed"; });
    halted = !clip.kept || tracks.some(track => track.state === "failed");
    if (lost) clear();
    say(cancelled ? "Cancelled." : "", cancelled ? "" : error.message, halted ? again : undefined);
    if (error.status === 401) $("ask-token").showModal();
  }

  function again() {
    tracks.filter(track => track.state === "failed").forEach(report.tracks.reset);
    halted = false;
    next();
  }

  async function send(mine, signal) {
    const kept = await api.keep(mine.files, mine.images, signal);
    signal.throwIfAborted();
    if (!mine.kept) stage.describe(kept);
    mine.kept = kept;
  }

  async function read(mine, signal) {
    await send(mine, signal);
    const { width, height, frames, seconds } = mine.kept;
    $("facts").textContent = `${mine.files[0].name} · ${width} × ${height} · ${frames} frames · ${span(seconds)}`;
    return tracks.length ? "" : "Type what to look for.";
  }

  // Calls `request` with the id of the video; one that the service has forgotten is sent again.
  async function about(mine, signal, request) {
    try {
      return await request(mine.kept.id);
    } catch (error) {
      if (error.status !== 404) throw error;
    }
    say("The service has forgotten the video; it is sent again …");
    await send(mine, signal);
    return request(mine.kept.id);
  }

  async function ask(mine, signal) {
    const asked = tracks.filter(track => track.state === "waiting"), total = stage.frames * asked.length;
    let count = 0;
    asked.forEach(track => { track.state = "running"; });
    draw();
    await about(mine, signal, id => api.ask(id, asked.map(track => track.text), signal, line => {
      line.tracks?.forEach(end => report.tracks.finish(asked[end.sentence], end));
      if (!line.rle) return;
      report.tracks.take(asked[line.sentence], line.frame, line, line.box !== null);
      progress(++count / total);
      if (line.frame === stage.frame) draw();
      drawCharts();
    }));
    return "";
  }

  const save = format => during("The file is being made …", async (mine, signal) => {
    const texts = tracks.filter(track => track.state === "done").map(track => track.text);
    const { blob, name } = await about(mine, signal, id => api.file(id, texts, format, signal));
    download(blob, name);
    return `Saved as ${name}.`;
  });

  // Videos
  async function choose(list) {
    const files = [...list].filter(file => file.size), images = files.every(file => file.type.startsWith("image/"));
    const bytes = files.reduce((sum, file) => sum + file.size, 0);
    $("file").value = "";
    await ready;
    const most = health.limits.bytes, size = `${Math.ceil(bytes / MB)} MB, the limit is ${Math.floor(most / MB)} MB`;
    if (!files.length) return say("", "The file is empty. Choose a video.");
    if (!images && files.length > 1) return say("", "Choose one video, or several images.");
    if (bytes > most) return say("", files.length > 1 ? `The files have ${size}. Choose fewer.` : `The file has ${size}. Choose a smaller one.`);
    if (images) files.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    clear();
    clip = { files, images };
    stage.show(files, images);
    $("facts").textContent = files[0].name;
    next();
    $("sentence").focus({ preventScroll: true });
  }

  // Leaves the video; sentences that are not answered are kept for the next one.
  function clear() {
    work?.abort();
    camera.stop(stage.video);
    stage.hide();
    clip = undefined;
    halted = false;
    const texts = tracks.filter(track => track.state !== "done").map(track => track.text);
    tracks = [];
    $("tracks").replaceChildren();
    $("facts").textContent = "";
    texts.forEach(add);
    say("");
    busy();
  }

  async function live() {
    clear();
    const mine = clip = { live: true };
    offer();
    say("The camera starts …");
    const answers = { onanswers, onproblem: sentence => say("", sentence), onend: sentence => { clear(); say("", sentence); } };
    try {
      const size = await camera.start(stage.video, answers);
      if (mine !== clip) return;
      stage.resize(...size);
      say(tracks.length ? "" : "Type what to look for.");
      next();
    } catch (error) {
      if (mine !== clip) return;
      clear();
      say("", error.name === "NotAllowedError" ? "The browser may not use the camera. Allow it, and try again." : `The camera cannot be used: ${error.message}.`);
    }
  }

  function onanswers(answers) {
    for (const answer of answers) {
      const track = tracks.find(one => one.text === answer.sentence);
      if (track) report.tracks.take(track, 0, answer, answer.score >= health.min_score);
    }
    if (!$("wrong").hidden) say("");
    draw();
  }

  // Keys and mouse
  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") return work?.abort();
    if (event.target.matches("input[type=text]")) return;
    const type = () => $("sentence").focus(), step = by => (event.target.matches("input") ? false : stage.step(by));
    const track = /^[1-9]$/.test(event.key) ? tracks[event.key - 1] : undefined;
    const acts = {
      "/": type,
      n: type,
      "?": () => $("keys").showModal(),
      " ": () => (event.target.matches("button, #file") ? false : stage.toggle()),
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
    };
    if (track) toggle(track);
    else if (!acts[event.key] || acts[event.key]() === false) return;
    event.preventDefault();
  }

  const over = (event, on) => { event.preventDefault(); document.body.classList.toggle("over", on); };

  function listen() {
    stage.onframe = draw;
    $("file").onchange = event => choose(event.target.files);
    $("form").onsubmit = take;
    $("cancel").onclick = () => work?.abort();
    $("another").onclick = () => { clear(); $("file").focus(); };
    $("camera").onclick = live;
    $("help").onclick = () => $("keys").showModal();
    $("saves").onclick = ({ target }) => { if (target.dataset.format) save(target.dataset.format); };
    $("token-form").onsubmit = () => { api.token = $("token").value; again(); };
    document.onkeydown = key;
    document.ondragover = event => over(event, true);
    document.ondragleave = event => over(event, event.relatedTarget !== null);
    document.ondrop = event => {
      over(event, false);
      if (event.dataTransfer.files.length) choose(event.dataTransfer.files);
    };
  }

  async function begin() {
    while (!health)
      health = await api.health().catch(error => new Promise(retry => say("", error.message, () => { say(""); retry(); })));
    report.data.colours = health.colours;
    const { bytes, seconds, sentences } = health.limits;
    $("limits").textContent = `or images, in the order of their names. At most ${Math.floor(bytes / MB)} MB, ${span(seconds)}, ${sentences} sentences.`;
    offer();
  }

  theme($("theme"));
  listen();
  const ready = begin(); // what is typed or dropped before the service has told its limits waits for them
})();
