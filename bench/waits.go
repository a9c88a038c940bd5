package main

import (
	"fmt"
	"io"
	"time"
)

// waiting are the candidates that are compared in waiting. Besides a whole run
// it is only raw and the guard: it takes long, and no peer changes anything.
func (h *harness) waiting() []*entry {
	if !h.opts.accept {
		return h.entries
	}
	var two []*entry
	for _, e := range h.entries {
		if e.name == rawName || e.name == guardName {
			two = append(two, e)
		}
	}
	return two
}

// waits measures what takes its time because somebody waits.
func (h *harness) waits(lockWait, cancel bool) (*Results, error) {
	r := &Results{Run: h.describe()}
	if lockWait {
		for _, e := range h.waiting() {
			began := time.Now()
			l, err := h.lockWait(e)
			if err != nil {
				return nil, err
			}
			r.LockWaits = append(r.LockWaits, l)
			fmt.Fprintf(h.log, "%-20s %s, %.1fs\n", "lock waits", e.name, time.Since(began).Seconds())
		}
	}
	if cancel {
		var err error
		if r.Cancels, r.Lost, err = h.cancels(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// writeWaits prints what waits measured, if it did.
func writeWaits(w io.Writer, r *Results) {
	if len(r.LockWaits) > 0 {
		g := newGrid("candidate", "hand-over median", "max", "untold median", "max", "n", "returned after", "max", "n", "error")
		for _, l := range r.LockWaits {
			g.row(l.Candidate, fmt.Sprintf("%.2f ms", l.HandoverMedianMs), fmt.Sprintf("%.2f ms", l.HandoverMaxMs),
				fmt.Sprintf("%.2f ms", l.UntoldMedianMs), fmt.Sprintf("%.2f ms", l.UntoldMaxMs), fmt.Sprint(l.Handovers),
				fmt.Sprintf("%.0f ms", l.ReturnMs), fmt.Sprintf("%.0f ms", l.ReturnMaxMs), fmt.Sprint(l.DeadlineTries), l.Error)
		}
		fmt.Fprintf(w, "\n### Lock waits\n\nTwo pools on one file. Hand-over: from the holder's commit to the waiter's success; untold: the holder is raw's, and tells nobody. Returned after: a waiter with a deadline of %.0f ms and a busy timeout of %.0f ms.\n\n",
			r.LockWaits[0].DeadlineMs, r.LockWaits[0].BusyTimeoutMs)
		g.write(w)
		writeCrowds(w, r.LockWaits)
	}
	if len(r.Cancels) > 0 {
		g := newGrid("candidate", "statement", "n", "median", "p90", "max", "wrong error")
		for _, c := range r.Cancels {
			g.row(c.Candidate, c.Statement, fmt.Sprint(c.N), fmt.Sprintf("%.3f ms", c.MedianMs),
				fmt.Sprintf("%.3f ms", c.P90Ms), fmt.Sprintf("%.3f ms", c.MaxMs), fmt.Sprint(c.WrongError))
		}
		fmt.Fprint(w, "\n### From cancel() to return\n\nexec, query: a recursive CTE. count: count(*) over one table, a single opcode.\n\n")
		g.write(w)
		for _, c := range r.Cancels {
			fmt.Fprintf(w, "\n%s, %s\n", c.Candidate, c.Statement)
			writeHistogram(w, c.Buckets)
		}
	}
	if len(r.Lost) > 0 {
		g := newGrid("candidate", "statement", "n", "lost", "worst")
		for _, l := range r.Lost {
			g.row(l.Candidate, l.Statement, fmt.Sprint(l.N), fmt.Sprint(l.Lost), fmt.Sprintf("%.1f ms", l.WorstMs))
		}
		fmt.Fprintf(w, "\n### Cancelled 0 to 30 µs after the start\n\nLost: the statement ran on for more than %v.\n\n", lostAfter)
		g.write(w)
	}
}
