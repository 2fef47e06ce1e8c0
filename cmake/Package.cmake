# Debian packages, by CPack: evapid, the daemon with its tool, and kamailio-evapid-module.
#
#   cmake --preset package && cmake --build --preset package
#
# leaves them in build/package, each with its debug symbols beside it. What is in them is what Install.cmake installs; what
# makes a package of it lies in debian/. They are of a build for /usr: unit and module name paths below it.
#
# In:  EVAPID_PACKAGE_RELEASE      the Debian revision: 1, 2 ... of the same version of evapid. Packages for Debian 12 and 13 differ, so
#                                  that one is an upgrade of the other: 1~deb12u1 is before 1~deb13u1, and that before 1
#      EVAPID_PACKAGE_MAINTAINER   who answers for the packages: NAME <ADDRESS>
#      KAMAILIO_PACKAGE_VERSION    of the package that the module is for (KamailioSource.cmake)
#
# There are two runs of CPack, for it gives all packages of one run the same version, and the module has one of its own: when
# it is built again for another Kamailio, that is another version of the package.

if(NOT CMAKE_INSTALL_PREFIX STREQUAL "/usr" OR EVAPID_SANITIZE)
    return()
endif()
find_program(DPKG_SHLIBDEPS dpkg-shlibdeps)
if(NOT DPKG_SHLIBDEPS)
    message(STATUS "dpkg-shlibdeps was not found (dpkg-dev): no packages")
    return()
endif()
# CPack gives up in the middle without it, and does not say who asked for it. Who makes no packages doesn't need it.
find_program(FILE_PROGRAM file)
set(_lacking "")
if(NOT FILE_PROGRAM)
    set(_lacking "file was not found, with which CPack finds the programs among the files: install file, and configure again")
    message(STATUS "No packages: ${_lacking}")
endif()

# As Debian's own tools find out who it is (debchange(1)).
set(_maintainer "evapid packagers <packagers@evapid.invalid>")
if(DEFINED ENV{DEBFULLNAME} AND DEFINED ENV{DEBEMAIL})
    set(_maintainer "$ENV{DEBFULLNAME} <$ENV{DEBEMAIL}>")
endif()
set(EVAPID_PACKAGE_MAINTAINER "${_maintainer}" CACHE STRING "Maintainer of the Debian packages: NAME <ADDRESS>")
set(_release 1)
if(EXISTS /etc/os-release)
    file(STRINGS /etc/os-release _debian REGEX "^ID=debian$")
    file(STRINGS /etc/os-release _number REGEX "^VERSION_ID=\"?[0-9]+\"?$")
    if(_debian AND _number MATCHES "([0-9]+)") # testing and unstable have no number
        set(_release 1~deb${CMAKE_MATCH_1}u1)
    endif()
endif()
set(EVAPID_PACKAGE_RELEASE ${_release} CACHE STRING "Debian revision of the packages")

# The date of all that is in a package, so that the same sources give the same packages: that of the last commit.
set(_epoch "$ENV{SOURCE_DATE_EPOCH}")
if(NOT _epoch)
    execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} log -1 --format=%ct
        OUTPUT_VARIABLE _epoch ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()
if(NOT _epoch)
    message(STATUS "git does not say when the last commit was: the packages have today's date")
    string(TIMESTAMP _epoch "%s" UTC)
endif()
execute_process(COMMAND date -u -R -d @${_epoch}
    OUTPUT_VARIABLE changelog_date OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)

# package_papers(COMPONENT NAME VERSION): what every package has besides its files. EXCLUDE_FROM_ALL: `cmake --install` of
# everything leaves them out.
function(package_papers component name version)
    set(changelog_package ${name})
    set(changelog_version ${version})
    set(debian ${PROJECT_SOURCE_DIR}/cmake/debian)
    configure_file(${debian}/changelog.in ${PROJECT_BINARY_DIR}/debian/${name}/changelog.Debian @ONLY)
    install(FILES ${debian}/copyright ${PROJECT_BINARY_DIR}/debian/${name}/changelog.Debian ${PROJECT_SOURCE_DIR}/CHANGELOG.md
        DESTINATION share/doc/${name} COMPONENT ${component} EXCLUDE_FROM_ALL)
    install(FILES ${debian}/${name}/lintian-overrides
        DESTINATION share/lintian/overrides RENAME ${name} COMPONENT ${component} EXCLUDE_FROM_ALL)
endfunction()

set(_version ${PROJECT_VERSION}-${EVAPID_PACKAGE_RELEASE})
package_papers(daemon evapid ${_version})
set(_targets evapid evapictl)
set(_module_version "")
if(TARGET evapi AND KAMAILIO_PACKAGE_VERSION)
    # Without epoch and hyphen, which are not allowed there. What is later stays so: 5.6.3-2 before 5.6.3-2+deb12u1.
    string(REGEX REPLACE "^[0-9]+:" "" _module_version "${KAMAILIO_PACKAGE_VERSION}")
    string(REPLACE "-" "." _module_version "${PROJECT_VERSION}+kamailio${_module_version}")
    package_papers(module kamailio-evapid-module ${_module_version}-${EVAPID_PACKAGE_RELEASE})
    list(APPEND _targets evapi)
elseif(TARGET evapi)
    message(STATUS "Which package of Kamailio the module is for is not known (KAMAILIO_PACKAGE_VERSION): no package of it")
endif()

# ---- what CPack is told

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME evapid)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "${EVAPID_PACKAGE_MAINTAINER}")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "") # each description begins with its own
set(CPACK_SET_DESTDIR ON) # what goes to /etc goes to that of the package
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_OUTPUT_FILE_PREFIX ${PROJECT_BINARY_DIR})
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/debian/finish.cmake)
set(CPACK_EVAPID_EPOCH ${_epoch})

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL daemon)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_RELEASE ${EVAPID_PACKAGE_RELEASE})
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_DEBUGINFO_PACKAGE ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SECTION net)

set(CPACK_DEBIAN_DAEMON_PACKAGE_NAME evapid)
set(CPACK_DEBIAN_DAEMON_DESCRIPTION "event bus between Kamailio and its applications
evapid carries events from the routing script of the Kamailio SIP server to
applications over TCP, and their messages and answers back into the script.
The applications' connections belong to this daemon: they stay when Kamailio
restarts and when evapid does, an application that doesn't read holds up
nobody, and every event that somebody didn't get is counted.

This is the daemon with evapictl, which shows what it does. Kamailio needs
the module in the package kamailio-evapid-module.")
# systemd-sysusers makes the user; systemd itself need not run.
set(CPACK_DEBIAN_DAEMON_PACKAGE_DEPENDS "systemd | systemd-standalone-sysusers | systemd-sysusers")
set(CPACK_DEBIAN_DAEMON_PACKAGE_SUGGESTS kamailio-evapid-module)
foreach(_file postinst prerm postrm conffiles)
    list(APPEND CPACK_DEBIAN_DAEMON_PACKAGE_CONTROL_EXTRA ${PROJECT_SOURCE_DIR}/cmake/debian/evapid/${_file})
endforeach()

set(CPACK_DEBIAN_MODULE_PACKAGE_NAME kamailio-evapid-module)
set(CPACK_DEBIAN_MODULE_PACKAGE_SOURCE "evapid (${_version})")
set(CPACK_DEBIAN_MODULE_DESCRIPTION "evapi module for Kamailio that sends its events to evapid
This module takes the place of Kamailio's EVAPI module, with its functions,
event routes, variables and parameters: an existing kamailio.cfg needs
another path in its loadmodule line. Events of the routing script go through
evapid, which holds the applications' connections.

Kamailio loads a module only if it was built for that very Kamailio, so this
one depends on the version that it was built for. It lies in a folder of its
own, beside the module that it replaces.")
set(CPACK_DEBIAN_MODULE_PACKAGE_DEPENDS "kamailio (= ${KAMAILIO_PACKAGE_VERSION})")
set(CPACK_DEBIAN_MODULE_PACKAGE_RECOMMENDS evapid)

# Under another name than CPackConfig.cmake, for which CMake would make a target that runs CPack once.
set(CPACK_OUTPUT_CONFIG_FILE ${PROJECT_BINARY_DIR}/CPackPackages.cmake)
set(CPACK_SOURCE_OUTPUT_CONFIG_FILE ${PROJECT_BINARY_DIR}/CPackSources.cmake)
include(CPack)

if(_lacking)
    add_custom_target(packages COMMAND ${CMAKE_COMMAND} -E echo "No packages: ${_lacking}" COMMAND ${CMAKE_COMMAND} -E false VERBATIM)
    return()
endif()
add_custom_target(packages
    COMMAND ${PROJECT_SOURCE_DIR}/cmake/debian/pack ${_epoch} ${CMAKE_CPACK_COMMAND} ${CPACK_OUTPUT_CONFIG_FILE} ${_module_version}
    DEPENDS ${_targets} WORKING_DIRECTORY ${PROJECT_BINARY_DIR} COMMENT "Packing" VERBATIM)
