// Sentences with their masks over time: a colour, a switch, a score timeline, and what is known at the time shown.
"use strict";

report.tracks = (() => {
  const BINS = 240; // of a timeline
  const { badge, colour, curve, element, percent } = report.parts, STATUS = { ok: 0, absent: 1, partial: 2 };

  // State: "waiting" to be asked, "running", "done", or "failed". Masks, scores and "not here" have a place per frame.
  function make(text, place, { ontoggle, onremove, onseek }) {
    const made = document.getElementById("track").content.cloneNode(true).firstElementChild, part = name => made.querySelector(name);
    const track = { text, place, colour: colour(place), element: made, on: true };
    made.style.setProperty("--colour", track.colour);
    part(".sentence").textContent = text;
    part(".switch").setAttribute("aria-label", `Show ${text}`);
    part(".switch").onclick = () => ontoggle(track);
    part(".remove").setAttribute("aria-label", `Remove ${text}`);
    part(".remove").onclick = () => onremove(track);
    part(".chart").onclick = ({ clientX }) => {
      const box = part(".chart").getBoundingClientRect();
      onseek((clientX - box.left) / box.width);
    };
    return reset(track);
  }

  // Forgets answers, so that the sentence is asked again.
  function reset(track) {
    return Object.assign(track, { state: "waiting", status: 0, rles: [], scores: [], empty: [] });
  }

  // Returns the first number of a colour that no track has.
  function free(tracks) {
    const taken = new Set(tracks.map(track => track.place));
    let place = 0;
    while (taken.has(place)) place++;
    return place;
  }

  function toggle(track) {
    track.on = !track.on;
    track.element.classList.toggle("off", !track.on);
    track.element.querySelector(".switch").setAttribute("aria-checked", track.on);
  }

  function take(track, frame, { rle, score }, here) {
    track.rles[frame] = rle;
    track.scores[frame] = score;
    track.empty[frame] = !here;
  }

  // Takes the end of an answer: mean score, status, and a note.
  function finish(track, { score, status, note }) {
    const part = name => track.element.querySelector(name);
    track.state = "done";
    track.status = STATUS[status];
    part(".score").textContent = percent(1000 * score);
    part(".badge").className = "badge";
    badge(part(".badge"), track.status);
    part(".badge").title = note;
    part(".note").textContent = note;
    part(".note").hidden = track.status !== STATUS.partial;
  }

  function words(track, frame) {
    if (track.state === "done" && track.status === STATUS.absent) return "not here: in no frame of this video";
    if (track.empty[frame]) return "not here at this time";
    if (track.rles[frame]) return `score ${percent(1000 * track.scores[frame])}`;
    return { waiting: "waiting …", running: "looking …", failed: "not answered", done: "" }[track.state];
  }

  // Shows what is known at a frame.
  function show(track, frame, frames) {
    const line = track.element.querySelector(".here"), text = words(track, frame);
    if (line.textContent !== text) line.textContent = text;
    line.classList.toggle("absent", text.startsWith("not here"));
    track.element.querySelector(".chart").style.setProperty("--at", `${(100 * (frame + 0.5)) / Math.max(1, frames)}%`);
  }

  // Returns the masks that are to be drawn at a frame.
  const masks = (tracks, frame) =>
    tracks.filter(track => track.on && track.rles[frame] && !track.empty[frame]).map(track => ({ rle: track.rles[frame], colour: track.colour }));

  // Draws the score over time, with the times that have a mask.
  function chart(track, frames) {
    const bins = Math.min(BINS, frames), scores = [], masked = [];
    for (let bin = 0; bin < bins; bin++) {
      const from = Math.floor((bin * frames) / bins), to = Math.floor(((bin + 1) * frames) / bins);
      let sum = 0, count = 0, seen = "0";
      for (let frame = from; frame < to; frame++) {
        if (track.scores[frame] === undefined) continue;
        sum += track.scores[frame];
        count++;
        if (!track.empty[frame]) seen = "1";
      }
      scores.push(count ? (100 * sum) / count : 0);
      masked.push(seen);
    }
    const made = track.element.querySelector(".chart");
    made.replaceChildren(curve(scores, masked.join("")), element("span", "head"));
    made.classList.add("seeks");
  }

  return { make, reset, free, toggle, take, finish, show, masks, chart };
})();
