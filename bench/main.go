package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// Exit codes. A bound that does not hold is no failure of the program.
const (
	exitOK     = 0
	exitBroken = 1 // a bound of -gate or -accept does not hold
	exitError  = 2
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	held := true
	if err == nil {
		held, err = dispatch(o, stdout, stderr)
	}
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return exitError
	case !held:
		return exitBroken
	}
	return exitOK
}

// dispatch does what the flags ask for and reports whether every bound held.
func dispatch(o options, stdout, stderr io.Writer) (held bool, err error) {
	if o.from != "" {
		r, err := readResults(o.from)
		if err != nil {
			return false, err
		}
		return report(o, r, stdout)
	}
	h, err := newHarness(o, stderr)
	if err != nil {
		return false, err
	}
	defer h.close()
	switch {
	case o.cpuProfile != "":
		return true, h.profile(stdout)
	case o.gate:
		return h.gate(stdout)
	case !o.accept && (o.lockWait || o.cancel):
		r, err := h.waits(o.lockWait, o.cancel)
		if err == nil {
			writeWaits(stdout, r)
		}
		return true, err
	}
	r, err := h.run()
	if err != nil {
		return false, err
	}
	if o.accept {
		w, err := h.waits(true, true)
		if err != nil {
			return false, err
		}
		r.LockWaits, r.Cancels, r.Lost = w.LockWaits, w.Cancels, w.Lost
	}
	return report(o, r, stdout)
}

// report prints a run and keeps it, and with -accept judges it.
func report(o options, r *Results, stdout io.Writer) (held bool, err error) {
	writeTables(stdout, r)
	writeWaits(stdout, r)
	if why := o.keepsNothing(); why != "" {
		fmt.Fprintf(stdout, "\n%s: results.json and overhead.svg are not written; -out writes them.\n", why)
	} else if err := r.save(o.out); err != nil {
		return false, err
	}
	if !o.accept {
		return true, nil
	}
	verdicts := judge(r)
	writeVerdicts(stdout, verdicts)
	return !anyFailed(verdicts), nil
}
