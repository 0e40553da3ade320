// A session over WebSocket: fragmented MP4 into a MediaSource, the microphone as PCM.

import { openSocket } from "./server.js";
import { captureMicrophone, RATE } from "./sound.js";

const FPS = 25;
const BEGIN_S = 0.2; // one latent frame and the first: at hand before playing begins
const LIVE_S = 0.5; // with a microphone, more than this at hand is played a little faster
const KEEP_S = 15;
const MOST_WAITING = 1 << 20;

// `mimes`: what the server can send, by the coding of its sound.
export async function connectSocket({ start, mimes, video, onMessage, onEnd }) {
  const Source = window.ManagedMediaSource ?? window.MediaSource;
  const sound = Source && Object.keys(mimes).find((name) => Source.isTypeSupported(mimes[name]));
  if (!sound) throw new Error("this browser can play no fragmented MP4 (MediaSource)");
  const socket = openSocket("v1/live");
  socket.binaryType = "arraybuffer";
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error("the WebSocket could not be opened"));
  });
  const send = (message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));
  send({ ...start, type: "start", rate: RATE, microphone: false, pictures: "fmp4", sound });
  const media = await new Promise((resolve, reject) => {
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "media") resolve(message);
      else reject(new Error(message.message));
    };
    socket.onclose = ({ reason }) => reject(new Error(reason || "the WebSocket was closed"));
  });
  const tape = new Tape(Source, media, video);
  let stopMicrophone = null;
  let over = false;
  const end = () => {
    if (over) return;
    over = true;
    stopMicrophone?.();
    socket.close();
    tape.close();
    onEnd();
  };
  socket.onmessage = ({ data }) => {
    if (data instanceof ArrayBuffer) tape.add(data);
    else onMessage(JSON.parse(data));
  };
  socket.onclose = ({ code, reason }) => {
    if (code === 1008 || code === 1013) onMessage({ type: "error", message: reason });
    end();
  };
  const sendSound = (pcm) => socket.readyState === WebSocket.OPEN && socket.send(pcm);
  return {
    name: "WebSocket",
    send,
    sendSound,
    full: () => socket.bufferedAmount > MOST_WAITING,
    async useMicrophone(media) {
      stopMicrophone?.();
      tape.live = Boolean(media);
      stopMicrophone = media ? await captureMicrophone(media, sendSound) : null;
    },
    interrupt() { send({ type: "clear", shown: tape.hold() }); },
    cleared: (message) => tape.rewind(message.frame),
    seen: () => tape.seen(),
    skew: async () => tape.skew(),
    close: end,
  };
}

// What was received, appended in order; a rewind drops what lies from a frame on. Frame 0 stands at `offset_s`.
class Tape {
  constructor(Source, { mime, offset_s }, video) {
    this.video = video;
    this.offset = offset_s;
    this.live = false;
    this.jobs = [];
    this.held = false;
    this.media = null;
    this.source = new Source();
    video.disableRemotePlayback = true;
    video.srcObject = null; // it would win over src
    video.src = this.url = URL.createObjectURL(this.source);
    this.source.addEventListener("sourceopen", () => {
      if (this.buffer) return;
      this.buffer = this.source.addSourceBuffer(mime);
      this.buffer.addEventListener("updateend", () => this.work());
      this.work();
    });
    this.timer = setInterval(() => this.pace(), 50);
    video.requestVideoFrameCallback?.(this.look = (_, { mediaTime }) => {
      this.media = mediaTime - video.currentTime;
      video.requestVideoFrameCallback(this.look);
    });
  }

  add(data) { this.jobs.push({ data }); this.work(); }

  // Frames seen so far.
  seen() { return Math.max(0, (this.video.currentTime - this.offset) * FPS); }

  // Stop at once; return the number of frames that were seen, the present one included.
  hold() {
    this.held = true;
    this.video.pause();
    return Math.floor(this.seen()) + 1;
  }

  rewind(frame) {
    this.jobs.push({ from: this.offset + frame / FPS }); // what waits before it may hold frames before the cut
    this.work();
  }

  work() {
    const buffer = this.buffer;
    while (buffer && !buffer.updating && this.source.readyState === "open" && this.jobs.length) {
      const job = this.jobs.shift();
      try {
        if (job.data) buffer.appendBuffer(job.data);
        else {
          buffer.abort();
          buffer.remove(job.from, Infinity);
          // The decoder has read ahead of what is seen: without a seek it would wait for the next key frame after that.
          this.video.currentTime = Math.min(this.video.currentTime, job.from - 0.001);
          this.held = false;
        }
      } catch (error) {
        if (error.name === "QuotaExceededError") { this.jobs.unshift(job); this.forget(5); }
        return;
      }
    }
  }

  forget(keep) {
    const until = this.video.currentTime - keep;
    if (until > this.offset && !this.buffer.updating) this.buffer.remove(0, until);
  }

  // Begin when enough is there, keep up with a microphone, and forget what was seen.
  pace() {
    const ranges = this.buffer?.buffered;
    if (!ranges?.length || this.held) return;
    const { video } = this;
    const end = ranges.end(ranges.length - 1);
    if (video.currentTime < ranges.start(0)) video.currentTime = ranges.start(0) + 0.001;
    const last = ranges.start(ranges.length - 1); // a gap, after a rewind or a pause
    if (ranges.length > 1 && video.currentTime < last && video.readyState < 3) video.currentTime = last + 0.001;
    const ahead = end - video.currentTime;
    if (video.paused && ahead >= BEGIN_S) video.play().catch(() => {});
    video.playbackRate = this.live && ahead > LIVE_S ? 1.1 : 1;
    if (ranges.start(0) < video.currentTime - 2 * KEEP_S && !this.jobs.length) this.forget(KEEP_S);
  }

  // How much later (below 0: earlier) the frame on screen is than the sound, in ms.
  skew() { return this.media === null ? null : -1000 * this.media; }

  close() {
    clearInterval(this.timer);
    this.video.removeAttribute("src");
    this.video.load();
    URL.revokeObjectURL(this.url);
  }
}
