// In the audio thread: what the microphone gives, in pieces of 20 ms, as s16le.

const PIECE = 960;

registerProcessor("capture", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.stopped = false;
    this.port.onmessage = () => { this.stopped = true; };
  }

  process([input]) {
    const wave = input[0] ?? new Float32Array(128); // no track: silence
    for (const value of wave) {
      this.piece[this.filled++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.filled === PIECE) {
        this.port.postMessage(this.piece.buffer, [this.piece.buffer]);
        this.piece = new Int16Array(PIECE);
        this.filled = 0;
      }
    }
    return !this.stopped;
  }
});
