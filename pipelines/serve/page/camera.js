// The camera: frames go to the service one by one, and the answers to each come back before the next is sent.
"use strict";

report.camera = (() => {
  const WIDTH = 640, QUALITY = 0.8; // pixels, and quality of the JPEG, of a frame that is sent
  const canvas = document.createElement("canvas");
  let stream, socket, waiting = false, sentences = [], turn = 0;

  // Starts the camera and returns the size of the frames that are sent; nothing if it was stopped meanwhile. Calls
  // `onanswers` with the answers to each frame, `onproblem` with why one has none, `onend` with why the stream ended.
  async function start(video, { onanswers, onproblem, onend }) {
    const mine = ++turn, opened = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
    if (mine !== turn) return end(opened);
    stream = video.srcObject = opened;
    await video.play();
    canvas.width = Math.min(WIDTH, video.videoWidth);
    canvas.height = Math.round((canvas.width * video.videoHeight) / video.videoWidth);
    socket = report.api.socket();
    socket.onopen = () => { tell(); send(video); };
    socket.onmessage = ({ data }) => {
      const said = JSON.parse(data);
      if (said.sentences) return;
      if (said.error) onproblem(said.error);
      else onanswers(said.answers);
      waiting = false;
      send(video);
    };
    socket.onclose = ({ reason }) => { if (mine === turn) onend(reason || "The service ended the stream. Start the camera again."); };
    return [canvas.width, canvas.height];
  }

  // Sends the newest picture, once the answer to the one before is there: what comes between is not sent.
  async function send(video) {
    if (waiting || !sentences.length || socket?.readyState !== WebSocket.OPEN) return;
    waiting = true;
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const to = socket, blob = await new Promise(take => canvas.toBlob(take, "image/jpeg", QUALITY));
    if (to.readyState === WebSocket.OPEN) to.send(blob);
  }

  function tell() {
    if (sentences.length && socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ sentences }));
  }

  // Asks these sentences from now on; without any, no picture is sent.
  function ask(video, texts) {
    sentences = texts;
    tell();
    send(video);
  }

  const end = one => one?.getTracks().forEach(track => track.stop());

  function stop(video) {
    turn++;
    waiting = false;
    socket?.close();
    end(stream);
    socket = stream = video.srcObject = null;
  }

  return { start, ask, stop };
})();
