// The head of a column is a button: a click, Enter or the space bar sorts the table by it, and again turns the order round.
// Cells without a value come last either way.
for (const table of document.querySelectorAll("table.sorts"))
  table.querySelectorAll("thead th").forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0];
    const key = (row) => { const text = row.cells[column].firstChild?.textContent.trim() ?? "", number = parseFloat(text);
      return column === 0 ? text : Number.isNaN(number) ? null : number; };
    const order = (a, b) => a === null || b === null ? (a === null) - (b === null) :
      (up ? 1 : -1) * (a < b ? -1 : a > b ? 1 : 0);
    for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
  }));
// One scrubber for all videos, in seconds; a shorter one waits at its end. Played together, the longest has the sound.
const videos = [...document.querySelectorAll("video")], at = document.getElementById("at");
if (at) {
  const play = document.getElementById("play"), time = document.getElementById("time");
  let leader = videos[0], together = false, held = false;
  const show = (seconds) => { time.textContent = seconds.toFixed(2) + " s"; };
  const known = () => {
    for (const video of videos) if (video.duration > (leader.duration || 0)) leader = video;
    if (leader.duration) at.max = leader.duration;
  };
  for (const video of videos) {
    video.addEventListener("loadedmetadata", known);
    video.addEventListener("timeupdate", () => {
      if (video !== leader || held) return;
      at.value = leader.currentTime;
      show(leader.currentTime);
    });
  }
  known();
  at.addEventListener("pointerdown", () => { held = true; });
  for (const end of ["pointerup", "pointercancel", "change"]) at.addEventListener(end, () => { held = false; });
  at.addEventListener("input", () => {
    for (const video of videos) if (video.duration) video.currentTime = Math.min(Number(at.value), video.duration);
    show(Number(at.value));
  });
  play.addEventListener("click", () => {
    together = !together;
    play.textContent = together ? "stop all" : "play all";
    for (const video of videos) {
      video.muted = video !== leader;
      video.loop = !together;
      if (together) video.currentTime = Math.min(leader.currentTime, video.duration || 0), video.play();
      else video.pause();
    }
  });
  for (const video of videos) video.addEventListener("ended", () => { if (together && video === leader) play.click(); });
}
