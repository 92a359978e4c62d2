// The camera: frames go to the service one by one, and the masks of each are drawn above the picture.
"use strict";

report.camera = (() => {
  const WIDTH = 640, QUALITY = 0.8; // pixels, and quality of the JPEG, of a frame that is sent
  const canvas = document.createElement("canvas");
  let media, socket, waiting = false, sentences = [];

  // Starts the camera; calls `onanswer` with the answers to each frame, and `onend` with a sentence if it breaks off.
  async function start(video, onanswer, onend) {
    media = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
    video.srcObject = media;
    await video.play();
    canvas.width = Math.min(WIDTH, video.videoWidth);
    canvas.height = Math.round((canvas.width * video.videoHeight) / video.videoWidth);
    socket = report.api.socket();
    socket.onopen = () => { tell(); send(video); };
    socket.onmessage = ({ data }) => {
      const said = JSON.parse(data);
      if (said.sentences) return;
      if (said.error) onend(said.error);
      else onanswer(said.answers, canvas.width, canvas.height);
      waiting = false;
      send(video);
    };
    socket.onclose = () => { if (media) onend("The service ended the stream."); };
  }

  // Sends the newest picture, once the answer to the one before is there: what comes between is not sent.
  async function send(video) {
    if (!media || waiting || socket.readyState !== WebSocket.OPEN) return;
    if (!sentences.length) return void setTimeout(() => send(video), 200);
    waiting = true;
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise(take => canvas.toBlob(take, "image/jpeg", QUALITY));
    if (socket.readyState === WebSocket.OPEN) socket.send(blob);
  }

  function tell() {
    if (sentences.length && socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ sentences }));
  }

  function stop(video) {
    const old = media;
    media = undefined;
    waiting = false;
    socket?.close();
    old?.getTracks().forEach(track => track.stop());
    video.srcObject = null;
  }

  return { start, stop, get on() { return media !== undefined; }, ask(texts) { sentences = texts; tell(); } };
})();
