// The language of one example becomes the language of all, here and on the next page. Without this, each is chosen alone.
const remembered = "tallystick-language";

function choose(language) {
  for (const label of document.querySelectorAll(".tabs > label")) {
    if (label.textContent === language) document.getElementById(label.htmlFor).checked = true;
  }
}

const before = localStorage.getItem(remembered);
if (before) choose(before);
document.addEventListener("change", (event) => {
  const label = event.target.matches(".tabs > input") && document.querySelector(`label[for="${event.target.id}"]`);
  if (!label) return;
  localStorage.setItem(remembered, label.textContent);
  choose(label.textContent);
});
