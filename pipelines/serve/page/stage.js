// The stage: the user's own video or images, with masks drawn above, and one clock for both.
"use strict";

report.stage = (() => {
  const LONGEST = 960; // pixels of the longer side of the drawn masks
  const { clock } = report.parts;
  const $ = id => document.getElementById(id);
  const video = $("video"), still = $("still"), canvas = $("masks"), seek = $("seek");
  let times = [], images = [], frame = 0, painted = 0, onframe = () => {};
  let slides = false; // true where the stage keeps the time: images, and a file that the browser cannot play
  let running = false, began = 0; // of the slides, in seconds of the page

  // Shows a video file, or images.
  function show(files, asImages) {
    hide();
    slides = asImages;
    images = asImages ? files : [];
    video.hidden = slides;
    still.hidden = !slides;
    if (slides) paint(0);
    else video.src = URL.createObjectURL(files[0]);
  }

  function hide() {
    pause();
    if (video.src) URL.revokeObjectURL(video.src);
    video.removeAttribute("src");
    video.hidden = false;
    still.hidden = $("unplayable").hidden = true;
    times = [];
    images = [];
    slides = false;
    frame = 0;
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }

  // Tells size and times of the frames, once the service has read them.
  function describe({ width, height, times: seconds }) {
    times = seconds;
    resize(width, height);
    seek.max = times.length - 1;
    if (slides) go(0);
    else settle();
  }

  // Sets the size of the drawn masks, and the shape of the stage.
  function resize(width, height) {
    const scale = Math.min(1, LONGEST / Math.max(width, height));
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    shape(width, height);
  }

  const shape = (width, height) => $("player").style.setProperty("--ratio", width / height);
  const length = () => (times.length > 1 ? times.at(-1) + times[1] - times[0] : 1);
  const now = () => performance.now() / 1000;

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

  // Takes a frame as the one that is seen.
  function reach(number) {
    if (!times.length) return;
    frame = number;
    seek.value = frame;
    seek.setAttribute("aria-valuetext", `${clock(times[frame])}, frame ${frame + 1} of ${times.length}`);
    $("clock").textContent = clock(times[frame]);
    $("count").textContent = `${frame + 1} / ${times.length}`;
    if (images.length) paint(frame);
    onframe();
  }

  function go(number) {
    const wanted = Math.min(Math.max(0, number), times.length - 1);
    if (slides) began = now() - times[wanted];
    else video.currentTime = times[wanted] + 1e-4;
    reach(wanted);
  }

  const settle = () => { if (!slides) reach(frameAt(video.currentTime)); };

  // Follows the picture that is on the screen, as exactly as the browser tells.
  function follow() {
    const seen = time => {
      if (!slides && !video.seeking && frameAt(time) !== frame) reach(frameAt(time));
      follow();
    };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_, { mediaTime }) => seen(mediaTime));
    else requestAnimationFrame(() => seen(video.currentTime));
  }

  function turn() {
    if (!running) return;
    if (now() - began >= length()) began = now();
    const next = frameAt(now() - began);
    if (next !== frame) reach(next);
    requestAnimationFrame(turn);
  }

  async function paint(number) {
    const mine = ++painted, bitmap = await createImageBitmap(images[number]).catch(() => undefined);
    if (bitmap && mine === painted) {
      still.width = bitmap.width;
      still.height = bitmap.height;
      still.getContext("2d").drawImage(bitmap, 0, 0);
    }
    bitmap?.close();
  }

  function play() {
    if (!times.length) return;
    if (!slides) return void video.play().catch(() => {});
    running = true;
    began = now() - times[frame];
    tell();
    turn();
  }

  function pause() {
    running = false;
    video.pause();
    tell();
  }

  const plays = () => (slides ? running : !video.paused);

  function tell() {
    $("play").setAttribute("aria-label", plays() ? "Pause" : "Play");
    $("play").classList.toggle("runs", plays());
  }

  // Says that the browser cannot play the file; its frames are counted all the same.
  function giveUp() {
    if (!video.hasAttribute("src")) return;
    slides = true;
    video.hidden = true;
    $("unplayable").hidden = false;
    tell();
  }

  const toggle = () => (plays() ? pause() : play());
  const step = by => { pause(); go(frame + by); };

  follow();
  video.onloadedmetadata = () => {
    if (!video.videoWidth && !video.srcObject) giveUp(); // its sound can be played, its pictures cannot
    else if (!times.length && video.videoHeight) shape(video.videoWidth, video.videoHeight);
  };
  video.onerror = giveUp;
  video.onplay = video.onpause = tell;
  video.onseeked = settle;
  seek.oninput = () => { pause(); go(Number(seek.value)); };
  $("play").onclick = toggle;
  $("back").onclick = () => step(-1);
  $("forth").onclick = () => step(1);

  return {
    show, hide, describe, resize, toggle, step, go, video,
    draw: shown => report.masks.draw(canvas, shown),
    get frame() { return frame; },
    get frames() { return times.length; },
    set onframe(f) { onframe = f; },
  };
})();
