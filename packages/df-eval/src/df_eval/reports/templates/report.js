// A click on a column's head sorts its table by it; another click turns the order round.
for (const table of document.querySelectorAll("table.sorts"))
  table.querySelectorAll("thead th").forEach((head, column) => head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0];
    const key = (row) => { const text = row.cells[column].textContent.trim(), number = parseFloat(text);
      return column && !Number.isNaN(number) ? number : text; };
    const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
    for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => (up ? 1 : -1) * order(key(a), key(b))));
  }));
// One scrubber for all videos. Played together, the first has the sound.
const videos = [...document.querySelectorAll("video")], at = document.getElementById("at");
if (at) {
  const play = document.getElementById("play"), time = document.getElementById("time"), first = videos[0];
  let together = false;
  at.addEventListener("input", () => {
    for (const video of videos) if (video.duration) video.currentTime = at.value / at.max * video.duration;
  });
  first.addEventListener("timeupdate", () => {
    time.textContent = first.currentTime.toFixed(1) + " s";
    if (first.duration && document.activeElement !== at) at.value = first.currentTime / first.duration * at.max;
  });
  play.addEventListener("click", () => {
    together = !together;
    play.textContent = together ? "stop all" : "play all";
    videos.forEach((video, index) => { video.muted = index > 0; together ? video.play() : video.pause(); });
  });
}
