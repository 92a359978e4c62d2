// What the page asks of the service. `report` is the name that the drawing code shared with the HTML report knows.
"use strict";

const report = { data: { colours: [] } };

report.api = (() => {
  const LINE = "\n";
  let token = new URLSearchParams(location.hash.slice(1)).get("token") ?? new URLSearchParams(location.search).get("token") ?? "";

  class Refused extends Error {
    constructor(status, sentence) {
      super(sentence);
      this.status = status;
    }
  }

  async function request(path, options = {}) {
    const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
    const answer = await fetch(path, { ...options, headers }).catch(error => {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "The service cannot be reached. Look whether it still runs.");
    });
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, error ?? `The service answered ${answer.status}.`);
  }

  const health = async () => (await request("healthz")).json();

  async function keep(files, images, signal) {
    const body = new FormData();
    for (const file of files) body.append(images ? "images" : "video", file, file.name);
    return (await request("videos", { method: "POST", body, signal })).json();
  }

  const asked = (id, values, signal) =>
    request(`videos/${id}/sentences`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(values), signal });

  // Calls `take` with each line of the answer, as it arrives.
  async function ask(id, sentences, signal, take) {
    const reader = (await asked(id, { sentences }, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "", done = false;
    for (;;) {
      const part = await reader.read();
      if (part.done) break;
      const lines = (rest + part.value).split(LINE);
      rest = lines.pop();
      for (const line of lines) {
        const value = JSON.parse(line);
        if (value.error) throw new Refused(500, value.error);
        done ||= value.done === true;
        take(value);
      }
    }
    if (!done) throw new Refused(500, "The answer broke off. Ask again.");
  }

  async function file(id, sentences, format, signal) {
    const answer = await asked(id, { sentences, format }, signal);
    const [, name] = answer.headers.get("content-disposition").match(/filename="(.+)"/);
    return { name, blob: await answer.blob() };
  }

  const socket = () => new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/live${token ? `?token=${encodeURIComponent(token)}` : ""}`);

  return { Refused, ask, file, health, keep, socket, set token(value) { token = value; } };
})();
