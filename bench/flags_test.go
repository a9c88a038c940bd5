package main

import (
	"io"
	"testing"
)

func TestRoundsFollowTheMode(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{nil, fullRounds},
		{[]string{"-gate"}, gateRounds},
		{[]string{"-quick"}, quickRounds},
		{[]string{"-gate", "-quick"}, quickRounds},
		{[]string{"-quick", "-rounds", "7"}, 7},
	} {
		o, err := parseFlags(c.args, io.Discard)
		if err != nil || o.rounds != c.want {
			t.Errorf("%v: %d rounds, error %v, want %d", c.args, o.rounds, err, c.want)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "-1"}, {"-workloads", "("}, {"-candidates", "("}, {"QueryRow"}, {"-nonsense"}} {
		if _, err := parseFlags(args, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

// Only a whole run of full length replaces the files that the README shows.
func TestKeepsNothing(t *testing.T) {
	for _, c := range []struct {
		args []string
		kept bool
	}{
		{nil, true},
		{[]string{"-accept"}, true},
		{[]string{"-quick"}, false},
		{[]string{"-workloads", "ExecTx"}, false},
		{[]string{"-candidates", "sqlmw"}, false},
		{[]string{"-from", "results.json"}, false},
		{[]string{"-quick", "-out", "somewhere"}, true},
	} {
		o, err := parseFlags(c.args, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if why := o.keepsNothing(); (why == "") != c.kept {
			t.Errorf("%v: %q", c.args, why)
		}
	}
}

func TestCommandNamesNoFolder(t *testing.T) {
	o, err := parseFlags([]string{"-accept", "-quick", "-rounds", "9", "-seed", "3", "-workloads", "^Exec", "-out", "/somewhere", "-dir", "/elsewhere"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := "go -C bench run . -accept -quick -workloads '^Exec' -rounds 9 -seed 3"
	if got := o.command(); got != want {
		t.Errorf("command = %s, want %s", got, want)
	}
}

func TestTakesPart(t *testing.T) {
	for _, c := range []struct {
		args []string
		name string
		want bool
	}{
		{nil, "sqlmw", true},
		{[]string{"-candidates", "^sqlmw$"}, rawName, true},
		{[]string{"-candidates", "^sqlmw$"}, guardName, false},
		{[]string{"-gate"}, "sqlmw", false},
		{[]string{"-gate", "-candidates", "sqlmw"}, "sqlmw", false},
		{[]string{"-gate"}, guardName, true},
		{[]string{"-gate"}, guardName + "-off", false},
		{[]string{"-lockwait"}, "sqlmw", false},
		{[]string{"-lockwait", "-candidates", "sqlmw"}, "sqlmw", true},
		{[]string{"-accept", "-lockwait"}, "sqlmw", true},
	} {
		o, err := parseFlags(c.args, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if got := takesPart(o, c.name); got != c.want {
			t.Errorf("%v: %s takes part: %v", c.args, c.name, got)
		}
	}
}
