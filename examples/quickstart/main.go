// Command quickstart shows what the guard does, on a real database file.
//
//	go run ./examples/quickstart
//
// works in a temporary folder: it runs a small shop, then forgets one of each
// kind (rows, a transaction, a connection, a statement, a BEGIN by SQL text),
// shows which line is to blame for "database is locked", waits until the guard
// has found and undone them, and checks the line that the guard names for each.
//
//	go run ./examples/quickstart -dsn 'file:app.db?_journal_mode=WAL'
//
// does the same in the database of that DSN. It creates the tables shop_products
// and shop_orders there and writes to them. Keys that the DSN does not have are
// filled in: short limits, WAL, a busy timeout.
//
//	go run ./examples/quickstart -db app.db
//
// only reads: it lists the tables of an existing database, abandons a slow
// reader and shows how it is reaped. Nothing is written to the file.
//
// The exit code is 1 if a planted leak was not found, not undone or named with
// the wrong line, or if another line is blamed for the lock, and 2 for flags and
// files that cannot be used.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// patience is how long the guard may take to find what was forgotten. With the
// limits used here it needs about two seconds.
const patience = 20 * time.Second

func main() {
	// The guard also logs what it finds, at level warn. Here it would stand
	// between the lines of the report.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// errUse is what makes the exit code 2: the flags or the file cannot be used.
var errUse = errors.New("")

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("db", "", "read-only part on this existing SQLite `file`")
	dsn := flags.String("dsn", "", "run the shop in the database of this `DSN`, which is written to")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })

	var err error
	switch {
	case flags.NArg() > 0:
		err = use("unexpected argument %q", flags.Arg(0))
	case given["db"] && given["dsn"]:
		err = use("-db only reads and -dsn writes: give one of them")
	case given["db"]:
		err = inspect(stdout, *file)
	case given["dsn"] && *dsn == "":
		err = use("-dsn is empty")
	default:
		err = demonstrate(stdout, *dsn)
	}
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		if errors.Is(err, errUse) {
			return 2
		}
		return 1
	}
	return 0
}

// use returns an error for what cannot be used.
func use(format string, args ...any) error {
	return fmt.Errorf(format+"%w", append(args, errUse)...)
}
