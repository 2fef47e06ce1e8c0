# Where the module's headers and compile flags come from.
#
# In:  KAMAILIO_SOURCE_DIR       a source tree that the user names, or empty
#      KAMAILIO_SOURCE_CACHE     where fetched trees are kept, outside any build so that builds share them
# Out: KAMAILIO_INCLUDE_DIR      the tree's src folder
#      KAMAILIO_FLAGS_FILE       a response file with the defines and options that the module must be compiled with
#      KAMAILIO_EXECUTABLE       the installed kamailio, or a false value
#      KAMAILIO_PACKAGE_VERSION  that of the Debian package whose source the tree is, unless the user gives another, or empty
#
# A module is loaded only by a Kamailio of the same version that was compiled with the same flags, so the source must be
# the installed one's. The folder cmake/ holds this and the scripts that the build runs; nothing in it is installed.

find_program(KAMAILIO_EXECUTABLE kamailio PATHS /usr/sbin /usr/local/sbin)

set(_cache_home "$ENV{XDG_CACHE_HOME}")
if(NOT _cache_home AND NOT "$ENV{HOME}" STREQUAL "")
    set(_cache_home "$ENV{HOME}/.cache")
elseif(NOT _cache_home)
    set(_cache_home "${PROJECT_BINARY_DIR}/cache")
endif()
set(KAMAILIO_SOURCE_CACHE "${_cache_home}/evapid" CACHE PATH "Where fetched Kamailio source trees are kept")

# A message that begins with a space is printed on one line, as it is.
set(_remedy "give -DKAMAILIO_SOURCE_DIR=DIR, or build without the module: -DEVAPID_BUILD_MODULE=OFF")

if(KAMAILIO_EXECUTABLE)
    # An upgrade of Kamailio configures anew: other source, other flags.
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${KAMAILIO_EXECUTABLE}")
endif()

# kamailio_fetch(TREE): have the source of the installed package there.
function(kamailio_fetch tree)
    if(EXISTS "${tree}/src/config.mak")
        return()
    endif()
    message(STATUS "Fetching the source of kamailio ${_package_version} into ${tree}")
    execute_process(COMMAND ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/fetch-kamailio-source "${tree}"
        ERROR_VARIABLE _reason RESULT_VARIABLE _result)
    if(NOT _result EQUAL 0)
        string(STRIP "${_reason}" _reason)
        string(REPLACE "\n" "; " _reason "${_reason}")
        message(FATAL_ERROR " No source of Kamailio (${_reason}): ${_remedy}")
    endif()
endfunction()

# kamailio_configure(TREE CONFIG REASON): have Kamailio's own make write CONFIG anew. Sets the variable of the name REASON to why it
# could not, or to nothing.
function(kamailio_configure tree config reason)
    execute_process(COMMAND ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/configure-kamailio "${tree}/src" "${config}"
        ERROR_VARIABLE _said RESULT_VARIABLE _result)
    set(${reason} "" PARENT_SCOPE)
    if(NOT _result EQUAL 0)
        string(STRIP "${_said}" _said)
        set(${reason} "`make -C ${tree}/src FLAVOUR=kamailio cfg` is needed and failed: ${_said}" PARENT_SCOPE)
    endif()
endfunction()

# kamailio_compare(TREE CONFIG STATUS DIFFERENCE): would the installed Kamailio take a module that is built so? Sets the variables of
# those names to what compare-flags ends with and says.
function(kamailio_compare tree config status difference)
    execute_process(
        COMMAND ${CMAKE_COMMAND} -E env "CC=${CMAKE_C_COMPILER}"
            ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/compare-flags "${tree}/src" "${config}" "${KAMAILIO_EXECUTABLE}"
        OUTPUT_VARIABLE _said RESULT_VARIABLE _status OUTPUT_STRIP_TRAILING_WHITESPACE)
    set(${status} "${_status}" PARENT_SCOPE)
    set(${difference} "${_said}" PARENT_SCOPE)
endfunction()

# ---- the tree

set(_fetched OFF) # whether the tree is of the cache, and so ours to throw away
if(KAMAILIO_SOURCE_DIR)
    get_filename_component(_tree "${KAMAILIO_SOURCE_DIR}" ABSOLUTE)
    if(NOT EXISTS "${_tree}/src/core/sr_module.h")
        message(FATAL_ERROR " KAMAILIO_SOURCE_DIR: ${_tree} is not a Kamailio source tree (no src/core/sr_module.h)")
    endif()
    if(EXISTS "${_tree}/debian/changelog") # a source package of Debian's
        execute_process(COMMAND dpkg-parsechangelog -l "${_tree}/debian/changelog" -S Version
            OUTPUT_VARIABLE _binary_version ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    endif()
else()
    execute_process(COMMAND dpkg-query -W -f "\${source:Version}" kamailio
        OUTPUT_VARIABLE _package_version ERROR_QUIET RESULT_VARIABLE _result)
    execute_process(COMMAND dpkg-query -W -f "\${Version}" kamailio OUTPUT_VARIABLE _binary_version ERROR_QUIET)
    if(NOT _result EQUAL 0 OR NOT _package_version)
        message(FATAL_ERROR " No Debian package kamailio is installed whose source could be fetched: ${_remedy}")
    endif()
    string(REPLACE ":" "_" _package_version "${_package_version}")
    set(_tree "${KAMAILIO_SOURCE_CACHE}/kamailio-${_package_version}")
    kamailio_fetch("${_tree}")
    set(_fetched ON)
endif()
set(KAMAILIO_INCLUDE_DIR "${_tree}/src")
if(NOT KAMAILIO_PACKAGE_VERSION)
    set(KAMAILIO_PACKAGE_VERSION "${_binary_version}")
endif()

# ---- its flags

set(_config "${_tree}/src/config.mak")
set(_own_config ${_fetched}) # whether it is ours to write anew
if(NOT EXISTS "${_config}")
    # The user's tree may be read-only or a git checkout: leave it as it is, and configure a copy.
    set(_config "${PROJECT_BINARY_DIR}/kamailio-config/config.mak")
    set(_own_config ON)
    if(NOT EXISTS "${_config}" OR "${_tree}/src/Makefile.defs" IS_NEWER_THAN "${_config}")
        message(STATUS "Configuring a copy of ${_tree}")
        kamailio_configure("${_tree}" "${_config}" _reason)
        if(_reason)
            message(FATAL_ERROR " ${_reason}")
        endif()
    endif()
endif()

# `make cfg` decides by what it finds on the machine. What was written when a library was missing, or before an upgrade, does
# not fit: it is written anew, and a tree of the cache that is of no use is fetched anew, before anybody is asked to do it.
if(EVAPID_CHECK_MODULE AND KAMAILIO_EXECUTABLE)
    kamailio_compare("${_tree}" "${_config}" _status _difference)
    if(_status MATCHES "^[12]$" AND _own_config)
        message(STATUS "Configuring Kamailio's source anew: ${_difference}")
        kamailio_configure("${_tree}" "${_config}" _reason)
        kamailio_compare("${_tree}" "${_config}" _status _difference)
    endif()
    if(_status EQUAL 2 AND _fetched)
        message(STATUS "Fetching Kamailio's source anew: ${_difference}")
        file(REMOVE_RECURSE "${_tree}")
        kamailio_fetch("${_tree}")
        kamailio_compare("${_tree}" "${_config}" _status _difference)
    endif()
    if(NOT _status EQUAL 0)
        set(_hint "")
        if(_difference MATCHES "has [^,]*TLS_PTHREAD_MUTEX_SHARED")
            set(_hint "; `make cfg` gives TLS_PTHREAD_MUTEX_SHARED where pkg-config finds libssl: install libssl-dev")
        endif()
        message(FATAL_ERROR " Kamailio would refuse the module: ${_difference}${_hint} "
            "(-DEVAPID_CHECK_MODULE=OFF builds it for another Kamailio)")
    endif()
endif()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${_config}")

file(STRINGS "${_config}" _defs REGEX "^C_DEFS=")
file(STRINGS "${_config}" _mutex REGEX "^CC_PMUTEX_OPTS=")
string(REGEX REPLACE "^C_DEFS= *" "" _defs "${_defs}")
string(REGEX REPLACE "^CC_PMUTEX_OPTS= *" "" _mutex "${_mutex}")
if(NOT _defs MATCHES "-DVERSION='\"([^\"]+)\"'")
    message(FATAL_ERROR " ${_config}: no C_DEFS with a VERSION; `make -C ${_tree}/src FLAVOUR=kamailio cfg` writes it")
endif()
set(_source_version "${CMAKE_MATCH_1}")

set(KAMAILIO_FLAGS_FILE "${PROJECT_BINARY_DIR}/kamailio-flags.rsp")
set(_flags "${_defs} ${_mutex}\n")
set(_written "")
if(EXISTS "${KAMAILIO_FLAGS_FILE}")
    file(READ "${KAMAILIO_FLAGS_FILE}" _written)
endif()
if(NOT _written STREQUAL _flags) # objects depend on the file: touch it only when it changes
    file(WRITE "${KAMAILIO_FLAGS_FILE}" "${_flags}")
endif()
message(STATUS "Kamailio ${_source_version}, headers in ${KAMAILIO_INCLUDE_DIR}")
