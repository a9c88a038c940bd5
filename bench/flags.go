package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// options is what the command line says.
type options struct {
	workloads  *regexp.Regexp
	candidates *regexp.Regexp
	rounds     int
	quick      bool
	seed       uint64
	out        string
	outSet     bool
	dir        string
	from       string
	cpuProfile string

	gate        bool
	gateBG      float64
	gateCtxExec float64

	accept   bool
	lockWait bool
	cancel   bool
}

// How much is measured where no flag says so.
const (
	fullRounds  = 300
	gateRounds  = 120
	quickRounds = 15
	fullBatch   = 4 * time.Millisecond
	quickBatch  = time.Millisecond
)

func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	workloads := f.String("workloads", "", "only workloads whose name matches this `regexp`, such as '^ExecTx/'")
	candidates := f.String("candidates", "", "only candidates whose name matches this `regexp`; raw always runs")
	f.IntVar(&o.rounds, "rounds", 0, fmt.Sprintf("rounds per workload (default %d; with -gate %d, with -quick %d)", fullRounds, gateRounds, quickRounds))
	f.BoolVar(&o.quick, "quick", false, "few rounds of short batches: shows that it runs, not how fast")
	f.Uint64Var(&o.seed, "seed", 1, "seed of the order within rounds and of the bootstrap")
	f.StringVar(&o.out, "out", ".", "`folder` for results.json and overhead.svg")
	f.StringVar(&o.dir, "dir", "", "`folder` for the databases (default the system's temporary folder)")
	f.StringVar(&o.from, "from", "", "measure nothing: read this results.json `file`")
	f.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of one candidate in one workload to this `file`")
	f.BoolVar(&o.gate, "gate", false, "compare raw and leakguard only; exit 1 if leakguard is too slow")
	f.Float64Var(&o.gateBG, "gate-bg", 1.10, "limit of the ratio for Background workloads, 15 % more for opening, which is known to cost more (gate.go), 0: not checked")
	f.Float64Var(&o.gateCtxExec, "gate-ctx-exec", 0.9, "limit of the ratio for ExecTx/ctx, 0: not checked")
	f.BoolVar(&o.accept, "accept", false, "measure everything and judge every acceptance bound; exit 1 if one fails")
	f.BoolVar(&o.lockWait, "lockwait", false, "measure waiting for locks only")
	f.BoolVar(&o.cancel, "cancel", false, "measure cancellation only")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	f.Visit(func(f *flag.Flag) { o.outSet = o.outSet || f.Name == "out" })

	var err error
	if o.workloads, err = pattern("workloads", *workloads); err != nil {
		return o, err
	}
	if o.candidates, err = pattern("candidates", *candidates); err != nil {
		return o, err
	}
	switch {
	case o.rounds < 0:
		return o, errors.New("-rounds is negative")
	case o.rounds > 0:
	case o.quick:
		o.rounds = quickRounds
	case o.gate:
		o.rounds = gateRounds
	default:
		o.rounds = fullRounds
	}
	return o, nil
}

// pattern returns nil, which selects everything, for an empty expression.
func pattern(name, expr string) (*regexp.Regexp, error) {
	if expr == "" {
		return nil, nil
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, fmt.Errorf("-%s: %w", name, err)
	}
	return re, nil
}

func selected(re *regexp.Regexp, name string) bool {
	return re == nil || re.MatchString(name)
}

func (o options) batch() time.Duration {
	if o.quick {
		return quickBatch
	}
	return fullBatch
}

// keepsNothing says why the run does not replace the files in the bench folder,
// which the README shows, or returns "".
func (o options) keepsNothing() string {
	switch {
	case o.outSet:
		return ""
	case o.from != "":
		return "Read from a file"
	case o.quick:
		return "Quick run"
	case o.workloads != nil || o.candidates != nil:
		return "Partial run"
	}
	return ""
}

// command is how to repeat the run, without the flags that name folders.
func (o options) command() string {
	b := []string{"go -C bench run ."}
	if o.accept {
		b = append(b, "-accept")
	}
	if o.quick {
		b = append(b, "-quick")
	}
	if o.workloads != nil {
		b = append(b, fmt.Sprintf("-workloads '%s'", o.workloads))
	}
	if o.candidates != nil {
		b = append(b, fmt.Sprintf("-candidates '%s'", o.candidates))
	}
	if !o.quick && o.rounds != fullRounds || o.quick && o.rounds != quickRounds {
		b = append(b, fmt.Sprintf("-rounds %d", o.rounds))
	}
	if o.seed != 1 {
		b = append(b, fmt.Sprintf("-seed %d", o.seed))
	}
	return strings.Join(b, " ")
}
