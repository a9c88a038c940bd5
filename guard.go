package leakguard

import "github.com/sqlite-leakguard/sqlite-leakguard/tracker"

// Stats returns a snapshot over all pools of tracker.Default, closed ones
// included. Its JSON form has the field names that the page in ARCHITECTURE.md
// lists.
func Stats() tracker.Stats { return tracker.Default().Stats() }

// OnLeak calls f once for each leak found in a pool of tracker.Default, until
// cancel is called. f runs on the tracker's dispatcher, outside every lock,
// and may call anything, sql.DB.Close included; while it runs, later events
// wait. A panic in it is contained and counted. OnLeak panics if f is nil.
func OnLeak(f func(tracker.Leak)) (cancel func()) { return tracker.Default().OnLeak(f) }
