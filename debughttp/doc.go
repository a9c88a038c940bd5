// Package debughttp serves a page that shows what a program holds of its
// SQLite pools at this moment, what of it seems forgotten, and who opened it:
//
//	http.Handle("/debug/leakguard/", debughttp.Handler(nil))
//
// The handler serves, below the path it is mounted at (which ends in "/"):
//
//   - the page itself. It loads itself again every ten seconds; ?refresh=60
//     changes that and ?refresh=0 stops it. It needs no script and nothing from
//     elsewhere.
//   - ?format=json: the same as JSON. Durations are in seconds.
//   - pprof: everything open as a profile by the call stack that opened it, for
//     go tool pprof -top http://localhost:6060/debug/leakguard/pprof. Sample
//     types are count, age (the default, in seconds, added up) and memory (what
//     SQLite holds for connections, by who leased them); labels are kind, pool
//     and, of a suspect, the limit that it broke.
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
