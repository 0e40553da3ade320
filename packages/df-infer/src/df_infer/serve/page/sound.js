// The microphone, and files of sound, as PCM s16le mono at 48 kHz.

export const RATE = 48000; // BROWSER_RATE of the server
const PIECE_S = 0.2;
const AHEAD_S = 1.5; // a file is sent so far ahead of being spoken

let context = null;

// Browsers let sound begin only after a press of a button: the first call must come from one.
export function audioContext() {
  context ??= new AudioContext({ sampleRate: RATE });
  context.resume();
  return context;
}

export async function openMicrophone(processed) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("The browser gives microphones to pages over HTTPS or on localhost only.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: processed, noiseSuppression: processed, autoGainControl: processed, channelCount: 1 },
    });
  } catch (error) {
    if (error.name === "NotFoundError") throw new Error("No microphone was found.");
    if (error.name === "NotReadableError") throw new Error("Another program holds the microphone.");
    throw new Error("The browser did not allow the microphone. Allow it in the address bar, then press Microphone again.");
  }
}

// Hand the microphone's sound on in pieces of 20 ms; return what stops it.
export async function captureMicrophone(media, send) {
  const audio = audioContext();
  await audio.audioWorklet.addModule("page/capture.js");
  const node = new AudioWorkletNode(audio, "capture", { numberOfOutputs: 0 });
  const input = audio.createMediaStreamSource(media);
  node.port.onmessage = ({ data }) => send(data);
  input.connect(node);
  return () => { input.disconnect(); node.port.onmessage = null; node.port.postMessage("stop"); };
}

// Watch how loud a microphone is.
export function watchLevel(media, show) {
  const audio = audioContext();
  const input = audio.createMediaStreamSource(media);
  const analyser = audio.createAnalyser();
  analyser.fftSize = 1024;
  input.connect(analyser);
  const wave = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => { analyser.getFloatTimeDomainData(wave); show(loudness(wave)); }, 60);
  return () => { clearInterval(timer); input.disconnect(); show(0); };
}

// From 0 (silence, -60 dB) to 1 (full scale).
function loudness(wave) {
  const power = wave.reduce((sum, value) => sum + value * value, 0) / wave.length;
  return Math.min(1, Math.max(0, 1 + (10 * Math.log10(power + 1e-9)) / 60));
}

export async function decodeFile(bytes) {
  let decoded;
  try {
    decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  } catch {
    throw new Error("The browser cannot decode this file; give a WAV, MP3, FLAC, Ogg or MP4.");
  }
  const mono = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    decoded.getChannelData(channel).forEach((value, at) => { mono[at] += value / decoded.numberOfChannels; });
  }
  return mono;
}

export function toPcm(wave) {
  const pcm = new Int16Array(wave.length);
  wave.forEach((value, at) => { pcm[at] = Math.max(-1, Math.min(1, value)) * 32767; });
  return pcm.buffer;
}

// Send a wave a little faster than it is spoken; return what stops it. `done` is called at its end.
export function sendWave(wave, connection, level, done) {
  const began = performance.now();
  let at = 0;
  const timer = setInterval(() => {
    const until = ((performance.now() - began) / 1000 + AHEAD_S) * RATE;
    while (at < wave.length && at < until && !connection.full()) {
      const piece = wave.subarray(at, at + PIECE_S * RATE);
      connection.sendSound(toPcm(piece));
      at += piece.length;
    }
    const now = ((performance.now() - began) / 1000) * RATE;
    level(now < wave.length ? loudness(wave.subarray(now, now + 2000)) : 0);
    if (now >= wave.length) { stop(); done(); }
  }, 50);
  const stop = () => { clearInterval(timer); level(0); };
  return stop;
}
