// A session over WebRTC: the microphone as a track, messages and sound files by the data channel "control".

import { postJson } from "./server.js";

const GATHER_MS = 1500;
const CONNECT_MS = 8000;
const MOST_WAITING = 1 << 20; // bytes in the channel before a sound file waits

export async function connectRtc({ start, video, onMessage, onEnd }) {
  if (!window.RTCPeerConnection) throw new Error("this browser has no WebRTC");
  const peer = new RTCPeerConnection({ iceServers: [] });
  const channel = peer.createDataChannel("control");
  channel.binaryType = "arraybuffer";
  const sound = peer.addTransceiver("audio", { direction: "sendrecv" });
  peer.addTransceiver("video", { direction: "recvonly" });
  const stream = new MediaStream();
  peer.ontrack = ({ track, receiver }) => {
    // Sound is held back by some 80 ms; so is the picture, until the browser has found how they belong together.
    if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = track.kind === "video" ? 80 : 0;
    stream.addTrack(track);
    video.srcObject = stream;
    video.play().catch(() => {});
  };
  const opened = new Promise((resolve) => { channel.onopen = resolve; });
  let over = false;
  const end = () => { if (!over) { over = true; peer.close(); video.srcObject = null; onEnd(); } };
  channel.onmessage = ({ data }) => onMessage(JSON.parse(data));
  channel.onclose = end;
  peer.onconnectionstatechange = () => { if (["failed", "closed"].includes(peer.connectionState)) end(); };

  try {
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const { sdp } = await postJson("v1/webrtc", { sdp: peer.localDescription.sdp, start });
    await peer.setRemoteDescription({ type: "answer", sdp });
    await within(opened, CONNECT_MS, "no way was found through the network (UDP)");
  } catch (error) {
    over = true;
    peer.close();
    video.srcObject = null; // it would win over the src of what is tried next
    throw error;
  }
  return {
    name: "WebRTC",
    send: (message) => channel.readyState === "open" && channel.send(JSON.stringify(message)),
    sendSound: (pcm) => channel.readyState === "open" && channel.send(pcm),
    full: () => channel.bufferedAmount > MOST_WAITING,
    async useMicrophone(media) {
      if (peer.signalingState !== "closed") await sound.sender.replaceTrack(media ? media.getAudioTracks()[0] : null);
    },
    interrupt() { this.send({ type: "clear" }); },
    cleared() {},
    seen: () => null,
    skew: () => rtcSkew(peer),
    close: end,
  };
}

function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    setTimeout(resolve, GATHER_MS);
    peer.addEventListener("icegatheringstatechange", () => peer.iceGatheringState === "complete" && resolve());
  });
}

function within(promise, ms, why) {
  return Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error(why)), ms))]);
}

// How much later (below 0: earlier) the picture is played than the sound that belongs to it, in ms; null where the browser does not tell.
async function rtcSkew(peer) {
  const times = {};
  for (const report of (await peer.getStats()).values()) {
    if (report.type === "inbound-rtp") times[report.kind] = report.estimatedPlayoutTimestamp;
  }
  return times.audio && times.video ? times.audio - times.video : null;
}
