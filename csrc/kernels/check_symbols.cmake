# SPDX-License-Identifier: Apache-2.0
# cmake -DNM=nm -DISA=avx2 -DOBJECTS=a.o|b.o -P check_symbols.cmake: fails when an object defines a global or weak
# symbol other than the constant tables (k...) of its own namespace.
string(REPLACE "|" ";" objects "${OBJECTS}")
string(LENGTH "${ISA}" isa_length)
foreach(object IN LISTS objects)
  execute_process(COMMAND ${NM} --defined-only ${object} OUTPUT_VARIABLE symbols RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${NM} ${object} failed")
  endif()
  string(REGEX MATCHALL "[^\n]* [A-TV-Zu] [^\n]*" exported "${symbols}")
  foreach(line IN LISTS exported)
    if(NOT line MATCHES " [DR] _ZN8fastconv${isa_length}${ISA}[0-9]+k[A-Z][A-Za-z0-9]*E$")
      message(FATAL_ERROR "${object} exports more than its table: ${line}")
    endif()
  endforeach()
endforeach()
