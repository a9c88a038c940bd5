#include "textflag.h"
#include "funcdata.h"

// func Call(bp uintptr, f func())
//
// The frame's prologue saves the real BP and its epilogue restores it.
TEXT ·Call(SB), 0, $8-16
	NO_LOCAL_POINTERS
	MOVQ f+8(FP), DX
	MOVQ bp+0(FP), BP
	MOVQ 0(DX), AX
	CALL AX
	RET

// func Address(p *uintptr) uintptr
TEXT ·Address(SB), NOSPLIT, $0-16
	MOVQ p+0(FP), AX
	MOVQ AX, ret+8(FP)
	RET
