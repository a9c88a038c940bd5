// Package leakguardtest fails tests that forget connections, transactions,
// statements or rows of SQLite:
//
//	func TestOrders(t *testing.T) {
//		defer leakguardtest.VerifyNone(t)
//		db, err := sql.Open("sqlite-leakguard", dsn)
//		…
//	}
//
// or all tests of a package at once:
//
//	func TestMain(m *testing.M) { leakguardtest.VerifyTestMain(m) }
//
// The failure names, for each leak, its kind, age, query and the line that
// opened it, with the call stack.
//
// # What counts
//
// Whatever the tracker's Held lists when the test is over: rows and statements
// that are not closed, transactions that were neither committed nor rolled
// back, connections that were not given back. A lease whose rows or
// transaction are found is one leak with them, not two. An open pool is none,
// and neither are its idle connections.
//
// Leaks that are over count as well: those that garbage collection proved and
// those that the guard undid since the tracker was made, as far as its
// LeakHistory reaches. Each of them is told by one check only, the first that
// sees it; what is still open is told by every check.
//
// What was opened with leakguard.Exempt counts too. Exempt keeps the guard
// from undoing a long job; when the test is over, the job should be. See
// [IgnoreExempt].
//
// database/sql gives connections back on goroutines of its own, so a check
// looks again and again until [Wait] is over, and collects garbage in between.
// What a test that passes costs is one look.
//
// # Tests in parallel
//
// [VerifyNone] charges a test with what it opened itself: its function, or a function
// literal in it, is in the leak's call stack. So one test's leak fails that test alone,
// and tests that run in parallel do not accuse each other. What was opened where no test
// is in the stack, in a goroutine of the program's, falls to the test that is running, and
// the report says so; if several are, to the last of them. Subtests are told apart if
// they are function literals of their own; those of a table, which are one literal, are not,
// and need a tracker each to run in parallel: leakguard.Config.Tracker and [Tracker].
//
// A defer in a test with parallel subtests runs before they do: check by t.Cleanup there.
//
// [Find] and [VerifyTestMain] tell whatever the tracker holds, other tests' things too.
//
// In a testing/synctest bubble make the tracker there; garbage collection runs outside of
// bubbles, so abandoned rows are told as open in one. Pools in mode "off" are not seen at
// all, and a check of a tracker that has seen no other pool fails: it would pass whatever
// the program does.
package leakguardtest
