// What the pages do with a script and can do without: each module adds one thing.
import { showTimes } from "./times.js";
import { listenForKeys } from "./keys.js";
import { followChoices } from "./reviews.js";

showTimes(document);
document.addEventListener("htmx:load", (event) => showTimes(event.target));
listenForKeys();
followChoices();
