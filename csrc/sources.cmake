# The native code without its Python bindings, for the module and for the fuzzer: SODEC_SOURCES; SODEC_X86 if some of
# them hold x86 instructions that need flags, SODEC_AVX512BF16 if some hold those of bf16. Each directory that compiles
# them must include this file, since CMake keeps a file's flags per directory.
set(SODEC_SOURCES
  checksum.cpp
  cpu.cpp
  pixels/pixels.cpp
  rans/dispatch.cpp
  rans/decoder.cpp
  rans/encoder.cpp
  rans/portable.cpp
  rans/tables.cpp
  scale_network/network.cpp
  scale_network/portable.cpp
)
list(TRANSFORM SODEC_SOURCES PREPEND "${CMAKE_CURRENT_LIST_DIR}/")

# The compiler is asked and not the host, so that cross builds (macOS arm64 on x86) get the right answer.
include(CheckCXXCompilerFlag)
include(CheckCXXSourceCompiles)
check_cxx_source_compiles("
  #if !defined(__x86_64__) && !defined(_M_X64)
  #error not x86-64
  #endif
  int main() { return 0; }" SODEC_IS_X86_64)

set(SODEC_X86 OFF)
set(SODEC_AVX512BF16 OFF)
if(SODEC_IS_X86_64 AND NOT SODEC_PORTABLE)
  set(SODEC_X86 ON)
  # Only these files may hold such instructions; cpu.cpp decides at run time whether they are entered.
  set(avx2_files rans/decode_avx2.cpp rans/encode_avx2.cpp rans/skip_avx2.cpp scale_network/avx2.cpp)
  set(avx512_files
    norm/avx512.cpp pixels/avx512.cpp rans/decode_avx512.cpp rans/encode_avx512.cpp rans/skip_avx512.cpp scale_network/avx512vnni.cpp)
  # MSVC has the intrinsics without a flag; GCC has them since version 10.
  set(avx512bf16_files)
  check_cxx_compiler_flag(-mavx512bf16 SODEC_HAS_AVX512BF16)
  if(MSVC OR SODEC_HAS_AVX512BF16)
    set(SODEC_AVX512BF16 ON)
    set(avx512bf16_files winograd/avx512bf16.cpp)
  endif()
  list(TRANSFORM avx2_files PREPEND "${CMAKE_CURRENT_LIST_DIR}/")
  list(TRANSFORM avx512_files PREPEND "${CMAKE_CURRENT_LIST_DIR}/")
  list(TRANSFORM avx512bf16_files PREPEND "${CMAKE_CURRENT_LIST_DIR}/")
  list(APPEND SODEC_SOURCES ${avx2_files} ${avx512_files} ${avx512bf16_files})
  if(MSVC)
    set_source_files_properties(${avx2_files} PROPERTIES COMPILE_OPTIONS /arch:AVX2)
    set_source_files_properties(${avx512_files} ${avx512bf16_files} PROPERTIES COMPILE_OPTIONS /arch:AVX512)
  else()
    set_source_files_properties(${avx2_files} PROPERTIES COMPILE_OPTIONS -mavx2)
    # GCC warns of its own _mm512_undefined_epi32 (PR 105593).
    set(avx512_flags
      -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
      $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized> $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>)
    set_source_files_properties(${avx512_files} PROPERTIES COMPILE_OPTIONS "${avx512_flags}")
    set_source_files_properties(${avx512bf16_files} PROPERTIES COMPILE_OPTIONS "${avx512_flags};-mavx512bf16")
  endif()
endif()
