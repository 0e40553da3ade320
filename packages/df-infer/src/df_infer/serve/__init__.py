"""The live server: a page, WebRTC, WebSocket and whole files, from one model (needs the extra ``df-infer[serve]``)."""
