// What the pages do with a script and can do without: each module adds one thing.
import { offerZone, showTimes } from "./times.js";
import { listenForKeys } from "./keys.js";
import { filterLists } from "./filter.js";
import { followEvents } from "./live.js";
import { selectAll } from "./selection.js";
import { followChoices } from "./reviews.js";

followEvents(); // before the times are rewritten: it compares this page with a newer one
showTimes(document);
document.addEventListener("htmx:load", (event) => showTimes(event.target));
offerZone();
listenForKeys();
selectAll();
filterLists();
followChoices();
