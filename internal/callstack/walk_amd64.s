//go:build !leakguard_nofp

#include "textflag.h"

// func frames(pcs *uintptr, max int) int
//
// The layout of a frame: 0(BP) is the caller's BP, 8(BP) the return address.
// g begins with stack.lo and stack.hi.
TEXT ·frames(SB), NOSPLIT|NOFRAME, $0-24
	MOVQ pcs+0(FP), DI
	MOVQ max+8(FP), CX
	MOVQ TLS, R8
	MOVQ 0(R8)(TLS*1), R8
	MOVQ 0(R8), R9  // stack.lo
	MOVQ 8(R8), R10 // stack.hi
	SUBQ $16, R10   // the last place for a frame
	MOVQ BP, R11
	XORQ AX, AX
loop:
	CMPQ AX, CX
	JGE  done
	CMPQ R11, R9
	JLS  done
	CMPQ R11, R10
	JHI  done
	TESTQ $7, R11
	JNE  done
	MOVQ 8(R11), R12
	TESTQ R12, R12
	JEQ  done
	MOVQ R12, (DI)(AX*8)
	INCQ AX
	MOVQ R11, R12
	MOVQ 0(R11), R11
	CMPQ R11, R12
	JHI  loop
done:
	MOVQ AX, ret+16(FP)
	RET

// func same(pcs *uintptr, n, max int) bool
TEXT ·same(SB), NOSPLIT|NOFRAME, $0-25
	MOVQ pcs+0(FP), DI
	MOVQ n+8(FP), CX
	MOVQ max+16(FP), DX
	MOVQ TLS, R8
	MOVQ 0(R8)(TLS*1), R8
	MOVQ 0(R8), R9
	MOVQ 8(R8), R10
	SUBQ $16, R10
	MOVQ BP, R11
	XORQ AX, AX
loop:
	CMPQ AX, DX
	JGE  end
	CMPQ R11, R9
	JLS  end
	CMPQ R11, R10
	JHI  end
	TESTQ $7, R11
	JNE  end
	MOVQ 8(R11), R12
	TESTQ R12, R12
	JEQ  end
	CMPQ AX, CX
	JGE  other // deeper than pcs
	CMPQ R12, (DI)(AX*8)
	JNE  other
	INCQ AX
	MOVQ R11, R12
	MOVQ 0(R11), R11
	CMPQ R11, R12
	JHI  loop
end:
	CMPQ AX, CX
	SETEQ ret+24(FP)
	RET
other:
	MOVB $0, ret+24(FP)
	RET
