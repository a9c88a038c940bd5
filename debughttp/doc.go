// Package debughttp serves a page that shows what a program holds of its
// SQLite pools at this moment, what of it seems forgotten, and who opened it:
//
//	http.Handle("/debug/leakguard/", debughttp.Handler(nil))
//
// The handler serves, below the path it is mounted at (which ends in "/"):
//
//   - the page itself: what is wrong and where to look first; the pools with their
//     modes, limits and places; which places are lost; suspects by the line that opened
//     them, those that do most harm first (see tracker.Tracker.Suspects); what rests
//     and is no leak yet; apart from them, and never red, what is exempt; then all that
//     is open. Long lists are cut, and say so: it stays below 200 kB. It loads itself
//     again every ten seconds; ?refresh=60 changes that and ?refresh=0 stops it. It
//     needs nothing from elsewhere. Its one script keeps unfolded what was when it loads
//     itself again, in the browser's sessionStorage; without scripts all else works.
//   - ?format=json: the same as JSON, whole. Durations are in seconds.
//   - ?format=text: the report of tracker.Tracker.WriteTo, for curl.
//   - pprof: everything open as a profile by the call stack that opened it, for
//     go tool pprof -top http://localhost:6060/debug/leakguard/pprof. In each sample
//     type a thing counts once. connections, transactions, rows and statements count
//     those. age (the default) is how long connections are held: each moment is charged
//     to what was opened last on the connection before it and is still open, so that a
//     connection with a transaction and rows counts no more than its own time; statements
//     hold no connection and have none. memory is what SQLite holds for connections, by
//     who leased them. Labels are kind, pool and, of a suspect, the limit that it broke.
//
// With [Control] there is a page to act on beside it, at control.
//
// The page names files and functions of the program, database files, pools,
// traces and the reasons given to Exempt. SQL texts are shown as the pool's setting
// sql says (tracker.SQLText), by default without the values that are written in them.
// Put it where only operators reach it, as with net/http/pprof.
//
// Nothing runs in the background. The figures over time are those of the
// tracker's memory monitor, one each memory_interval: they reach back before the
// page was opened, and a pool in mode basic has none.
package debughttp
