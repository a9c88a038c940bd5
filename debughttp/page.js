// Keeps unfolded what was, and folded what was, when the page loads itself again.
(() => {
	const key = "leakguard:" + location.pathname;
	let was = {};
	try { was = JSON.parse(sessionStorage.getItem(key)) || {}; } catch {}
	const is = {};
	for (const d of document.querySelectorAll("details[id]")) {
		const open = d.open;
		if (typeof was[d.id] === "boolean") {
			d.open = is[d.id] = was[d.id];
		}
		d.addEventListener("toggle", () => {
			if (d.open === open) delete is[d.id]; else is[d.id] = d.open;
			try { sessionStorage.setItem(key, JSON.stringify(is)); } catch {}
		});
	}
})();
