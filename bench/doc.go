// Bench measures what sqlite-leakguard costs, next to raw go-sqlite3 and to
// other database/sql wrappers, and what its cancellation gains.
//
// It is a module of its own, so that the peers never enter the library's
// go.mod. From the root of the repository:
//
//	go -C bench run .                   the table; writes results.json and overhead.svg
//	go -C bench run . -accept           the same, then lock waits and cancellation,
//	                                    and every acceptance bound with pass or fail
//	go -C bench run . -quick            few short rounds: does it run at all
//	go -C bench run . -gate             raw against the guard only: exit 1 if it became slower
//	go -C bench run . -lockwait         lock hand-over, deadlines while waiting for a lock, and
//	                                    what it costs when many wait
//	go -C bench run . -cancel           from cancel() to return, and cancels that are lost
//	go -C bench run . -from results.json -accept    judge an earlier run again
//	go -C bench run . -cpuprofile cpu.prof -workloads '^QueryRow/bg$' -candidates '^leakguard$'
//	go -C bench test -bench . -count 10 | benchstat -col /driver -
//
// (go run ./bench does not work: the folder is another module.)
//
// The build tag nopeers leaves the other wrappers out, with all that they
// need; the gate in CI is built that way:
//
//	go -C bench run -tags nopeers . -gate
//
// # Method
//
// All candidates live in one process, each with its own copy of one database
// file (WAL, synchronous=OFF: the time of fsync would hide the CPU's). In each
// round every candidate runs one batch of the same number of operations, about
// 4 ms on raw, in random order. The figure of a candidate is the median over
// the rounds of its time divided by raw's in the same round, with a 95 %
// confidence interval by bootstrap. The second raw candidate shows the noise.
//
// The garbage collector is off during a round and runs between rounds, so that
// nobody pays for the garbage of the candidate before; what a candidate leaves
// to the collector is in B/op and allocs/op, which are counted in batches of
// their own.
package main
