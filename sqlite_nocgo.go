//go:build !cgo

package leakguard

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Without cgo go-sqlite3 opens no connection, so nothing here but nameTaken is ever
// asked.

// nameTaken reports whether go-sqlite3 has taken the name. Without cgo it registers
// as "sqlite3" whatever name the linker was given, and opening is its own error
// then, which says what is missing.
func nameTaken(name string) bool { return slices.Contains(sql.Drivers(), name) }

func gaveUp(error) bool { return false }

func rollsBack(int) bool { return false }

func isConstraint(int) bool { return false }

func blockedBy(error) (tracker.Reason, bool) { return "", false }

func codeError(code int) error { return fmt.Errorf("sqlite: result code %d", code) }

func textResult() driver.Result { return driver.RowsAffected(0) }

func isCode(error, int) bool { return false }

func timeLayouts() []string { return nil }

func rowsOf(sqliteStmt) sqliteRows { return nil }

func alike() bool { return false }
