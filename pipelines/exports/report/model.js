// Data of the page: the index of all videos, their details, loaded page by page, and the filtering of videos.
"use strict";

const report = (() => {
  const KEPT = 80; // files of details held at a time
  const waiting = new Map(); // script name → what to do with what it hands over
  const pages = new Map(); // file of details → promise of it; the least lately used one first
  const fold = text => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  let data;

  // Data scripts pass their values by calling these functions: a page opened from disk cannot fetch files.
  const page = (number, details) => waiting.get(`page-${number}`)?.(details);
  const problems = (number, lines) => waiting.get(`problems-${number}`)?.(lines);

  function load(kind, number) {
    return new Promise((resolve, reject) => {
      const key = `${kind}-${number}`, element = document.createElement("script");
      const src = `data/${kind}-${String(number).padStart(4, "0")}.js`;
      const end = () => { waiting.delete(key); element.remove(); };
      waiting.set(key, values => { end(); resolve(values); });
      element.onload = element.onerror = () => { end(); reject(new Error(`${src} cannot be read.`)); };
      element.src = src;
      document.head.append(element);
    });
  }

  // Returns the details of a video; undefined if the report was rewritten after the page was opened.
  async function details(video) {
    const number = Math.floor(video / data.batch);
    const known = pages.get(number) ?? load("page", number);
    pages.delete(number);
    pages.set(number, known);
    if (pages.size > KEPT) pages.delete(pages.keys().next().value);
    known.catch(() => pages.delete(number));
    return (await known)[data.videos.id[video]];
  }

  async function allProblems() {
    const numbers = Array.from({ length: data.problems.files }, (_, number) => number);
    return (await Promise.all(numbers.map(number => load("problems", number)))).flat();
  }

  function take(index) {
    data = index;
    const { expressions, name, folder } = index.videos;
    const first = new Uint32Array(expressions.length + 1);
    expressions.forEach((count, video) => { first[video + 1] = first[video] + count; });
    data.first = first;
    data.foldedFolders = index.folders.map(fold);
    data.foldedSentences = index.sentences.map(fold);
    data.foldedVideos = name.map(fold);
    data.count = expressions.length;
    data.place = new Map(index.videos.id.map((id, video) => [id, video]));
    report.verdicts.begin(index.run);
  }

  // Every word must be in the text, or in the name or folder of its video; each text has a bit mask of the words.
  function search(query) {
    const words = fold(query).split(/\s+/).filter(Boolean).slice(0, 30);
    const bits = text => words.reduce((all, word, place) => (text.includes(word) ? all | (1 << place) : all), 0);
    const all = (1 << words.length) - 1;
    const sentences = data.foldedSentences.map(bits), folders = data.foldedFolders.map(bits);
    const videos = data.foldedVideos.map((name, video) => bits(name) | folders[data.videos.folder[video]]);
    return (video, row) => (videos[video] | sentences[data.rows.sentence[row]]) === all;
  }

  // Returns the videos with an expression that passes all filters, in order, and counts for each filter.
  function find(filters) {
    const { score, status } = data.rows, matches = search(filters.query);
    const low = filters.low * 10, high = filters.high * 10;
    const passes = new Uint8Array(score.length), key = new Float64Array(data.count);
    const histogram = new Array(25).fill(0), statuses = [0, 0, 0], videos = [];
    let rows = 0;
    for (let video = 0; video < data.count; video++) {
      let best = -1, worst = Infinity;
      for (let row = data.first[video]; row < data.first[video + 1]; row++) {
        if (!matches(video, row)) continue;
        if (filters.verdict && filters.verdict !== (report.verdicts.ofRow(video, row) || "none")) continue;
        const scored = score[row] >= low && score[row] <= high, selected = filters.status.has(status[row]);
        if (scored) statuses[status[row]]++;
        if (selected) histogram[Math.min(24, Math.max(0, Math.floor(score[row] / 40)))]++;
        if (!scored || !selected) continue;
        passes[row] = 1;
        rows++;
        best = Math.max(best, score[row]);
        worst = Math.min(worst, score[row]);
      }
      if (best < 0) continue;
      key[video] = { best: -best, worst, long: -data.videos.seconds[video], name: 0 }[filters.sort];
      videos.push(video);
    }
    if (filters.sort !== "name") videos.sort((a, b) => key[a] - key[b] || a - b);
    return { videos, rows, passes, histogram, statuses };
  }

  return { page, problems, take, details, allProblems, find, fold, get data() { return data; } };
})();
