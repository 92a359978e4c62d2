// Dialog of one video: its overlay, and a chart of the score over time for every expression, linked to the player.
"use strict";

report.viewer = (() => {
  const { address, badge, clock, colour, curve, element, percent, player, whole } = report.parts;
  const dialog = document.getElementById("details");
  const stage = dialog.querySelector(".stage"), facts = dialog.querySelector(".facts"), list = dialog.querySelector(".expressions");
  let shown = -1, turn = 0, step = () => {}, closed = () => {};

  async function open(video) {
    const { data } = report, mine = ++turn, name = data.videos.name[video];
    shown = video;
    dialog.querySelector("#details-name bdi").textContent = name;
    stage.replaceChildren();
    facts.replaceChildren();
    list.replaceChildren();
    if (!dialog.open) dialog.showModal();
    const details = await report.details(video).catch(() => undefined);
    if (mine !== turn) return; // another video was opened meanwhile
    dialog.querySelector(".path bdi").textContent = details?.source ?? data.folders[data.videos.folder[video]];
    if (!details) return stage.replaceChildren(element("p", "failed", "Its details are gone: the report was written anew. Reload the page."));
    const media = picture(details, name);
    show(video, details);
    const charts = expressions(video, details);
    if (media instanceof HTMLVideoElement) tie(media, charts);
  }

  function picture(details, name) {
    if (details.overlay) return player(stage, details, name);
    const words = element("p", "failed", "No overlay was made. Run the job again with overlay among its formats.");
    if (!details.still) return stage.replaceChildren(words);
    const image = element("img");
    image.alt = `A frame of ${name}`;
    image.src = address(details.still);
    stage.replaceChildren(image, words);
  }

  function show(video, details) {
    const seconds = report.data.videos.seconds[video];
    const rows = [
      ["Length", clock(seconds)],
      ["Size", `${details.width} × ${details.height}`],
      ["Frames", whole(details.frames)],
      ["Rate", `${+(details.fps ?? details.frames / seconds).toFixed(2)} /s`],
    ];
    facts.replaceChildren(...rows.map(([name, value]) => {
      const pair = element("div");
      pair.append(element("dt", "", name), element("dd", "", value));
      return pair;
    }));
  }

  function expressions(video, details) {
    const { data } = report, charts = [];
    list.replaceChildren(...details.expressions.map((expression, place) => {
      const row = data.first[video] + place, item = element("li", "expression");
      item.style.setProperty("--colour", colour(place));
      const head = element("div", "expression-head"), sentence = element("p", "sentence", data.sentences[data.rows.sentence[row]] || "(no words)");
      sentence.dir = "auto";
      head.append(element("span", "dot"), sentence, badge(element("span", "badge"), data.rows.status[row]), element("span", "score", percent(data.rows.score[row])));
      const chart = element("div", "chart");
      chart.append(curve(expression.scores, expression.masked), element("span", "head"));
      chart.setAttribute("role", "img");
      chart.setAttribute("aria-label", `Score over time: ${percent(data.rows.score[row])} on average, ${percent(expression.peak)} at most; a mask in ${percent(expression.visible)} of the frames`);
      charts.push(chart);
      const numbers = element("p", "numbers", `at most ${percent(expression.peak)} · mask in ${percent(expression.visible)} of the frames · ${expression.expression}`);
      const text = data.sentences[data.rows.sentence[row]];
      item.append(head, chart, numbers, report.verdicts.buttons(data.videos.id[video], expression.expression, text));
      if (expression.note) item.append(Object.assign(element("p", "note", expression.note), { dir: "auto" }));
      return item;
    }));
    return charts;
  }

  // Shows the player's time as a line in every chart; a click in a chart seeks.
  function tie(media, charts) {
    const mark = () => {
      if (!media.isConnected) return;
      const at = media.duration ? (100 * media.currentTime) / media.duration : 0;
      charts.forEach(chart => chart.style.setProperty("--at", `${at}%`));
      requestAnimationFrame(mark);
    };
    mark();
    charts.forEach(chart => {
      chart.classList.add("seeks");
      chart.onclick = event => {
        const box = chart.getBoundingClientRect();
        if (media.duration) media.currentTime = (media.duration * (event.clientX - box.left)) / box.width;
      };
    });
  }

  dialog.addEventListener("close", () => { turn++; shown = -1; stage.replaceChildren(); closed(); });
  dialog.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (event.target === dialog || button?.hasAttribute("data-close")) dialog.close();
    else if (button?.dataset.step) step(Number(button.dataset.step));
  });
  dialog.addEventListener("keydown", event => {
    if (event.target instanceof HTMLVideoElement || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") { event.preventDefault(); step(event.key === "ArrowLeft" ? -1 : 1); }
  });

  return { open, close: () => dialog.open && dialog.close(), set onstep(f) { step = f; }, set onclose(f) { closed = f; }, get shown() { return shown; } };
})();
