//go:build !leakguard_nofp

#include "textflag.h"

// func frames(pcs *uintptr, max int) int
//
// The layout of a frame: 0(R29) is the caller's R29, 8(R29) the return address.
// g begins with stack.lo and stack.hi.
TEXT ·frames(SB), NOSPLIT|NOFRAME, $0-24
	MOVD pcs+0(FP), R0
	MOVD max+8(FP), R1
	MOVD 0(g), R2 // stack.lo
	MOVD 8(g), R3 // stack.hi
	SUB  $16, R3  // the last place for a frame
	MOVD R29, R4
	MOVD ZR, R5
loop:
	CMP  R1, R5
	BGE  done
	CMP  R2, R4
	BLS  done
	CMP  R3, R4
	BHI  done
	AND  $7, R4, R6
	CBNZ R6, done
	MOVD 8(R4), R6
	CBZ  R6, done
	MOVD R6, (R0)(R5<<3)
	ADD  $1, R5
	MOVD R4, R7
	MOVD 0(R4), R4
	CMP  R7, R4
	BHI  loop
done:
	MOVD R5, ret+16(FP)
	RET

// func same(pcs *uintptr, n, max int) bool
TEXT ·same(SB), NOSPLIT|NOFRAME, $0-25
	MOVD pcs+0(FP), R0
	MOVD n+8(FP), R1
	MOVD max+16(FP), R8
	MOVD 0(g), R2
	MOVD 8(g), R3
	SUB  $16, R3
	MOVD R29, R4
	MOVD ZR, R5
loop:
	CMP  R8, R5
	BGE  end
	CMP  R2, R4
	BLS  end
	CMP  R3, R4
	BHI  end
	AND  $7, R4, R6
	CBNZ R6, end
	MOVD 8(R4), R6
	CBZ  R6, end
	CMP  R1, R5
	BGE  other // deeper than pcs
	MOVD (R0)(R5<<3), R7
	CMP  R7, R6
	BNE  other
	ADD  $1, R5
	MOVD R4, R7
	MOVD 0(R4), R4
	CMP  R7, R4
	BHI  loop
end:
	CMP  R1, R5
	CSET EQ, R6
	MOVB R6, ret+24(FP)
	RET
other:
	MOVB ZR, ret+24(FP)
	RET
