// The page: what is pressed, what is shown. How things travel is in rtc.js and socket.js.

import { connectRtc } from "./rtc.js";
import { connectSocket } from "./socket.js";
import { audioContext, decodeFile, openMicrophone, sendWave, watchLevel } from "./sound.js";
import { getBlob, getJson, postFile, Refused, useToken } from "./server.js";

const $ = (id) => document.getElementById(id);
const state = { connection: null, portrait: "example", media: null, stopLevel: null, stopWave: null, wanted: false, about: null };

const say = (text) => { $("status").textContent = text; };
const complain = (text) => { $("error").textContent = text ?? ""; $("error").hidden = !text; };
const level = (value) => { $("level").value = value; };
const pressed = (id, on) => $(id).setAttribute("aria-pressed", String(on));

async function load(again = false) {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) { useToken(given); history.replaceState(null, "", location.pathname + location.search); }
  try {
    state.about = await getJson("v1/about");
  } catch (error) {
    $("token-panel").hidden = !(error instanceof Refused && error.status === 401);
    if ($("token-panel").hidden) complain(error.message);
    else {
      say("This server needs its token.");
      if (again) complain("This is not the server's token.");
      $("token").value = "";
      $("token").focus();
    }
    return;
  }
  const { model, size, steps, audio_guidance, structure_guidance, most_steps, drive, face } = state.about;
  $("token-panel").hidden = true;
  $("model").textContent = `Model ${model}, ${size} × ${size} pixels`;
  $("steps").max = Math.min(most_steps, Math.max(16, 2 * steps));
  setOwn("steps", steps);
  setOwn("guidance", audio_guidance);
  setOwn("structure", structure_guidance ?? 1);
  $("structure-row").hidden = structure_guidance === null;
  $("drive-row").hidden = !drive;
  $("settings").hidden = false;
  if (!face) $("portrait-hint").prepend("The middle square of the picture is taken: the face should fill it. ");
  if (!state.connection) say("Press Start.");
  $("start").disabled = false;
  $("still").src = URL.createObjectURL(await getBlob("v1/portraits/example"));
}

// Put a slider at the model's own value, which may lie between its steps or beyond its ends.
function setOwn(id, own) {
  const slider = $(id);
  // On the grid of its steps, which is counted from min: what "off" is (1) must stay on it.
  slider.min = Math.min(slider.min, Math.floor(own / slider.step) * slider.step);
  slider.max = Math.max(slider.max, own);
  slider.value = own;
  Object.assign(slider.dataset, { own, untouched: slider.value });
  slider.dispatchEvent(new Event("input"));
}

// What was chosen; null: the model's own.
const chosen = (id) => ($(id).value === $(id).dataset.untouched ? null : Number($(id).value));
const valueOf = (id) => chosen(id) ?? Number($(id).dataset.own);

function settings() {
  return {
    steps: chosen("steps"),
    audio_guidance: chosen("guidance"),
    structure_guidance: chosen("structure"),
    drive: state.about.drive && $("drive").checked,
  };
}

async function connect() {
  complain();
  audioContext();
  $("start").disabled = true;
  say("Connecting …");
  const options = {
    start: { type: "start", portrait: state.portrait, settings: settings() },
    video: $("video"), onMessage: hear, onEnd: ended, mimes: state.about.mimes,
  };
  const wanted = $("transport").value;
  try {
    state.connection = wanted === "websocket" ? await connectSocket(options) : await connectRtc(options);
  } catch (error) {
    if (wanted === "auto" && !(error instanceof Refused)) {
      say("WebRTC did not connect; trying WebSocket …");
      try { state.connection = await connectSocket(options); } catch (second) { complain(second.message); }
    } else complain(error.message);
  }
  $("start").disabled = false;
  if (!state.connection) { say("Not connected."); return; }
  $("start").textContent = "Stop";
  say(`Connected by ${state.connection.name}; the face is being prepared …`);
}

function hear(message) {
  switch (message.type) {
    case "waiting": say(`All places are taken. You are number ${message.position} in the line.`); break;
    case "ready": ready(); break;
    case "cleared": state.connection?.cleared(message); break;
    case "stats": state.stats = message; figures(); break;
    case "ended": state.farewell = `The session ended: ${message.reason}.`; state.connection?.close(); break;
    case "error": complain(message.message); say("The server refused."); break;
  }
}

function ready() {
  say(`Live by ${state.connection.name}. Press Microphone and speak, or let the example speak.`);
  $("video").hidden = false;
  for (const id of ["interrupt", "mute", "microphone", "example", "sound-file", "apply"]) $(id).disabled = false;
  $("sound-label").setAttribute("aria-disabled", "false");
  state.connection.send({ type: "microphone", on: false });
  if (state.wanted) switchMicrophone(true);
}

function ended() {
  state.counted = null;
  stopWave();
  closeMicrophone();
  state.connection = null;
  $("video").hidden = true;
  for (const id of ["interrupt", "mute", "microphone", "example", "sound-file", "apply"]) $(id).disabled = true;
  $("sound-label").setAttribute("aria-disabled", "true");
  for (const id of ["delay", "rate", "skew", "computing"]) $(id).textContent = "–";
  $("slow").hidden = true;
  $("start").textContent = "Start";
  $("start").disabled = false;
  say(state.farewell ?? "Stopped.");
  state.farewell = null;
}

async function switchMicrophone(on) {
  complain();
  state.wanted = on;
  if (!on) {
    if (closeMicrophone()) say("The microphone is off.");
    return;
  }
  try {
    state.media = await openMicrophone($("echo").checked);
  } catch (error) {
    state.wanted = false;
    say("No microphone; sound from a file can still be spoken.");
    complain(error.message);
    return;
  }
  if (!state.connection) { closeMicrophone(); return; }
  stopWave();
  await state.connection.useMicrophone(state.media);
  state.connection.send({ type: "microphone", on: true });
  state.stopLevel = watchLevel(state.media, level);
  pressed("microphone", true);
  say("The microphone is open: speak.");
}

// Whether it was open.
function closeMicrophone() {
  if (!state.media) return false;
  state.stopLevel?.();
  state.connection?.send({ type: "microphone", on: false });
  state.connection?.useMicrophone(null);
  state.media.getTracks().forEach((track) => track.stop());
  state.media = null;
  pressed("microphone", false);
  return true;
}

async function speakFile(bytes, name) {
  complain();
  try {
    const wave = await decodeFile(bytes);
    if (!state.connection) return;
    stopWave();
    closeMicrophone();
    say(`Speaking: ${name}`);
    state.stopWave = sendWave(wave, state.connection, level, () => { state.stopWave = null; say("Sent; the face speaks to its end. Speak, or choose more sound."); });
  } catch (error) {
    say("The sound was not taken.");
    complain(error.message);
  }
}

function stopWave() { state.stopWave?.(); state.stopWave = null; }

function interrupt() {
  if (!state.connection) return;
  stopWave();
  state.connection.interrupt();
  say("Interrupted.");
}

async function figures() {
  const { stats, connection } = state;
  if (!connection || !stats) return;
  const seen = connection.seen() ?? stats.seen;
  // Of the session's own frames: the browser's count would hold those that are shown again while the next one is made.
  const now = performance.now();
  if (state.counted && now > state.counted.now) $("rate").textContent = `${Math.max(0, (1000 * (seen - state.counted.seen)) / (now - state.counted.now)).toFixed(1)} /s`;
  state.counted = { seen, now };
  // Of a file much is sent ahead: its delay says nothing.
  $("delay").textContent = state.media ? `${Math.max(0, Math.round((stats.heard - seen) * 40))} ms` : "–";
  $("computing").textContent = `${stats.speed.toFixed(1)} ×`;
  $("slow").hidden = stats.speed >= 1 || !stats.speed;
  const skew = await connection.skew();
  $("skew").textContent = skew === null ? "–" : `${Math.round(skew)} ms`;
}

async function choosePortrait(file) {
  complain();
  try {
    if (file) {
      say("Uploading the portrait …");
      const taken = await postFile("v1/portraits", file);
      state.portrait = taken.id;
      complain(taken.warnings.join(" "));
      $("still").src = URL.createObjectURL(file);
    } else {
      state.portrait = "example";
      $("still").src = URL.createObjectURL(await getBlob("v1/portraits/example"));
    }
    pressed("portrait-example", !file);
    say(state.connection ? "The portrait is used when you stop and start again." : "Ready: press Start.");
  } catch (error) {
    say("The portrait was not taken.");
    complain(error.message);
  }
}

$("start").onclick = () => (state.connection ? state.connection.close() : connect());
$("interrupt").onclick = interrupt;
$("mute").onclick = () => { const on = !$("video").muted; $("video").muted = on; pressed("mute", on); };
$("microphone").onclick = () => switchMicrophone(!state.media);
$("example").onclick = async () => speakFile(await (await fetch("page/speech.wav")).arrayBuffer(), "the example");
$("sound-file").onchange = async ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) speakFile(await file.arrayBuffer(), file.name);
};
$("portrait-example").onclick = () => choosePortrait(null);
$("portrait-file").onchange = ({ target }) => { const [file] = target.files; target.value = ""; if (file) choosePortrait(file); };
$("apply").onclick = () => { stopWave(); state.connection?.send({ type: "settings", settings: settings() }); say("The face begins anew."); };
$("steps").oninput = () => { $("steps-value").value = valueOf("steps"); };
for (const id of ["guidance", "structure"]) {
  $(id).oninput = () => { $(`${id}-value`).value = valueOf(id) === 1 ? "off" : valueOf(id).toFixed(2); };
}
$("token-form").onsubmit = (event) => { event.preventDefault(); useToken($("token").value); complain(); load(true); };
document.addEventListener("keydown", ({ key }) => { if (key === "Escape") interrupt(); });
load();
