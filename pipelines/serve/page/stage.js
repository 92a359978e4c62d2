// The stage: the user's own video or images, with masks drawn above, and one clock for both.
"use strict";

report.stage = (() => {
  const LONGEST = 960; // pixels of the longer side of the drawn masks
  const $ = id => document.getElementById(id);
  const video = $("video"), still = $("still"), canvas = $("masks"), seek = $("seek");
  let times = [], files = [], frame = -1, playing = false, began = 0, onframe = () => {}, drawn = 0;

  // Shows a video file, or images with the times of each.
  function show(media, images) {
    hide();
    files = images ? media : [];
    video.hidden = images;
    still.hidden = !images;
    if (images) paint(0);
    else {
      video.src = URL.createObjectURL(media[0]);
      video.load();
    }
  }

  function hide() {
    pause();
    if (video.src) URL.revokeObjectURL(video.src);
    video.removeAttribute("src");
    times = [];
    frame = -1;
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }

  // Tells the sizes and times of the frames, once the service has read them.
  function describe(facts) {
    times = facts.times;
    const scale = Math.min(1, LONGEST / Math.max(facts.width, facts.height));
    canvas.width = Math.max(1, Math.round(facts.width * scale));
    canvas.height = Math.max(1, Math.round(facts.height * scale));
    shape(facts.width, facts.height);
    seek.max = times.length - 1;
    frame = -1;
    look();
  }

  const shape = (width, height) => $("stage").style.setProperty("--ratio", width / height);
  const length = () => (times.length > 1 ? times.at(-1) + times[1] - times[0] : 1);

  // The last frame that is shown at a time.
  function frameAt(time) {
    let low = 0, high = times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (times[middle] <= time + 1e-3) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  function look() {
    if (!times.length) return;
    let now = frame;
    if (!files.length) now = frameAt(video.currentTime);
    else if (playing) {
      const time = (performance.now() - began) / 1000;
      if (time >= length()) began = performance.now();
      now = frameAt(time % length());
    }
    if (now !== frame) go(Math.max(0, now), false);
  }

  function go(number, move = true) {
    frame = Math.min(Math.max(0, number), times.length - 1);
    seek.value = frame;
    if (move && !files.length) video.currentTime = times[frame] + 1e-4;
    if (move && files.length) began = performance.now() - 1000 * times[frame];
    if (files.length) paint(frame);
    onframe(frame);
  }

  async function paint(number) {
    const mine = ++drawn, bitmap = await createImageBitmap(files[number]).catch(() => undefined);
    if (!bitmap || mine !== drawn) return;
    still.width = bitmap.width;
    still.height = bitmap.height;
    still.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  }

  function play() {
    if (!times.length) return;
    if (files.length) {
      playing = true;
      began = performance.now() - 1000 * times[Math.max(0, frame)];
      told();
    } else video.play().catch(() => {});
  }

  function pause() {
    playing = false;
    video.pause();
    told();
  }

  function told() {
    const runs = files.length ? playing : !video.paused;
    $("play").setAttribute("aria-label", runs ? "Pause" : "Play");
    $("play").classList.toggle("runs", runs);
  }

  const paused = () => (files.length ? !playing : video.paused);
  const toggle = () => (paused() ? play() : pause());
  const step = by => { pause(); go(frame + by); };

  (function tick() { look(); requestAnimationFrame(tick); })();
  video.onloadedmetadata = () => { if (!times.length && video.videoHeight) shape(video.videoWidth, video.videoHeight); };
  video.onplay = video.onpause = told;
  video.onseeked = () => { frame = -1; look(); };
  seek.oninput = () => { pause(); go(Number(seek.value)); };
  $("play").onclick = toggle;

  return {
    show, hide, describe, play, pause, toggle, step, go, canvas, video,
    draw: shown => report.masks.draw(canvas, shown),
    get frame() { return Math.max(0, frame); },
    get times() { return times; },
    set onframe(f) { onframe = f; },
  };
})();
