// What the page asks of the service. `report` is the name that the drawing code shared with the HTML report knows.
"use strict";

const report = { data: { colours: [] } };

report.api = (() => {
  let token = new URLSearchParams(location.hash.slice(1)).get("token") ?? new URLSearchParams(location.search).get("token") ?? "";

  // An error that is shown to the user, with the HTTP status of the answer; 0 if there was none.
  class Refused extends Error {
    constructor(status, sentence) {
      super(sentence);
      this.status = status;
    }
  }

  const lost = sentence => error => { throw error.name === "AbortError" ? error : new Refused(0, sentence); };

  async function request(path, options = {}) {
    const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
    const answer = await fetch(path, { ...options, headers }).catch(lost("The service cannot be reached. Look whether it still runs."));
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
      const part = await reader.read().catch(lost("The answer broke off."));
      if (part.done) break;
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      for (const line of lines.map(text => JSON.parse(text))) {
        if (line.error) throw new Refused(500, line.error);
        done ||= line.done === true;
        take(line);
      }
    }
    if (!done) throw new Refused(0, "The answer broke off.");
  }

  async function file(id, sentences, format, signal) {
    const answer = await asked(id, { sentences, format }, signal);
    const [, name] = answer.headers.get("content-disposition").match(/filename="(.+)"/);
    return { name, blob: await answer.blob().catch(lost("The file broke off.")) };
  }

  const socket = () => new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/live${token ? `?token=${encodeURIComponent(token)}` : ""}`);

  return { ask, file, health, keep, socket, set token(value) { token = value; } };
})();
