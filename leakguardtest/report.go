package leakguardtest

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// listed is how many leaks of one site are described one by one.
const listed = 5

// site is what leaks are grouped by.
type site struct {
	frame tracker.Frame
	kind  tracker.Kind
	fate  fate
	stray bool
}

// describe words what was found: the largest group first.
func describe(found findings) error {
	groups := make(map[site]findings)
	for _, f := range found {
		s := site{f.stack.Site(), f.kind, f.fate, f.stray}
		groups[s] = append(groups[s], f)
	}
	sites := make([]site, 0, len(groups))
	for s := range groups {
		sites = append(sites, s)
	}
	slices.SortFunc(sites, func(a, b site) int {
		return cmp.Or(
			len(groups[b])-len(groups[a]),
			cmp.Compare(groups[b][0].age, groups[a][0].age),
			strings.Compare(a.frame.String(), b.frame.String()),
			cmp.Compare(a.kind, b.kind),
			cmp.Compare(a.fate, b.fate),
		)
	})
	var b strings.Builder
	fmt.Fprintf(&b, "leakguardtest: found %s, opened at %s\n", many(len(found), "leak"), many(len(sites), "site"))
	for _, s := range sites {
		s.write(&b, groups[s])
	}
	b.WriteByte('\n')
	for _, k := range []tracker.Kind{tracker.KindRows, tracker.KindTransaction, tracker.KindConnection, tracker.KindStatement} {
		if slices.ContainsFunc(found, func(f finding) bool { return f.kind == k }) {
			fmt.Fprintf(&b, "hint: %s\n", hints[k])
		}
	}
	b.WriteString("hint: what stays open on purpose is left out by IgnoreCurrent, IgnorePool or IgnoreExempt")
	return errors.New(b.String())
}

var hints = map[tracker.Kind]string{
	tracker.KindRows:        "rows are open until rows.Close, or until Next has returned false: defer the Close once the error is checked. The Row of QueryRow is open until Scan",
	tracker.KindTransaction: "a transaction is open until Commit or Rollback: defer the Rollback, after a Commit it does nothing. A BEGIN by SQL text needs its COMMIT or ROLLBACK on the same connection",
	tracker.KindConnection:  "a connection of db.Conn is leased until its Close gives it back to the pool: defer that",
	tracker.KindStatement:   "a prepared statement is open until its Close, those of db.Prepare until that or db.Close",
}

func (s site) write(b *strings.Builder, group findings) {
	fmt.Fprintf(b, "\n%d × %s %s: opened at %s", len(group), s.kind, s.outcome(), s.frame)
	if s.frame.Function != "" {
		fmt.Fprintf(b, " in %s", path.Base(s.frame.Function))
	}
	if through := group[0].stack.Through(); through != "" {
		fmt.Fprintf(b, " through %s", through)
	}
	b.WriteByte('\n')
	for _, f := range group[:min(listed, len(group))] {
		f.write(b)
	}
	if n := len(group) - listed; n > 0 {
		fmt.Fprintf(b, "    and %d more\n", n)
	}
	if s.stray {
		b.WriteString("    charged to the test that was running: no test is in the call stack\n")
	}
	frames := group[0].stack.UserFrames()
	if len(frames) == 0 {
		b.WriteString("    no call stack: call sites are off (_leakguard_stacks)\n")
		return
	}
	b.WriteString("    stack:\n")
	for _, f := range frames {
		fmt.Fprintf(b, "      %s\n          %s:%d\n", f.Function, f.File, f.Line)
	}
}

func (s site) outcome() string {
	switch s.fate {
	case proven:
		return "proven to be lost (nothing points to it any more)"
	case undone:
		return "undone by the guard"
	}
	switch s.kind {
	case tracker.KindTransaction:
		return "neither committed nor rolled back"
	case tracker.KindConnection:
		return "not given back"
	}
	return "not closed"
}

func (f finding) write(b *strings.Builder) {
	fmt.Fprintf(b, "    %s, ", f.connection)
	if f.fate == open {
		b.WriteString("open")
	} else {
		b.WriteString("found when open")
	}
	fmt.Fprintf(b, " for %s", tracker.AgeText(f.age, f.atLeast))
	if f.leak != nil && f.leak.Reason != tracker.ReasonProven {
		fmt.Fprintf(b, ", a suspect for %s", oneLine(string(f.leak.Reason)))
		if f.leak.Limit > 0 {
			fmt.Fprintf(b, " of %v", f.leak.Limit)
		}
	}
	if f.exempt != "" {
		fmt.Fprintf(b, ", exempt: %s", oneLine(f.exempt))
	}
	if f.query != "" {
		fmt.Fprintf(b, ": %s", oneLine(f.query))
	}
	b.WriteByte('\n')
}

func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// oneLine folds a text into one printable line of at most 200 characters.
func oneLine(s string) string {
	const most = 200
	text := []rune(strings.Join(strings.Fields(strings.ToValidUTF8(s, "\ufffd")), " "))
	if len(text) > most {
		text = append(text[:most-1], '…')
	}
	for i, r := range text {
		if !unicode.IsPrint(r) {
			text[i] = '\ufffd'
		}
	}
	return string(text)
}
